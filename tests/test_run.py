"""What becomes of a stage whose code does not only return."""

import sys

import pytest
from manifests import manifest

from aligntune import outbox
from aligntune.artifacts import commit, partial
from aligntune.config.slices import DataSlice
from aligntune.errors import AlignTuneError
from aligntune.plan import Stage
from aligntune.run import Context, execute
from aligntune.stages import KINDS
from aligntune.work import Kind

KEY = "0" * 12


def stage():
    return Stage("data", "data", KEY, DataSlice.model_construct(), {}, {}, {"config": {}})


def test_one_whose_code_exits_is_no_success(tmp_path, monkeypatch):
    monkeypatch.setitem(KINDS, "data", Kind(1, DataSlice, lambda work: sys.exit(0)))
    context = Context(str(tmp_path), "", "first", None)
    with pytest.raises(AlignTuneError, match=r"data: something that it ran called exit\(0\)"):
        execute(stage(), context, lambda *_: None, lambda: False)


def test_a_reuse_is_told_though_another_process_tidies_meanwhile(tmp_path, monkeypatch):
    write = outbox.write_atomic

    def tidied_before(path, text):
        outbox.Outbox(tmp_path).tidy()
        write(path, text)

    commit(partial(tmp_path / "stages", "data", KEY), manifest("data", KEY))
    monkeypatch.setattr(outbox, "write_atomic", tidied_before)
    context = Context(str(tmp_path), "", "first", "run")
    done = execute(stage(), context, lambda *_: None, lambda: False)
    assert done.reused
    assert [record.id for record in outbox.Outbox(tmp_path).records()] == [done.record]
