"""What becomes of a stage whose code does not only return."""

import sys

import pytest

from aligntune.config.slices import DataSlice
from aligntune.errors import AlignTuneError
from aligntune.plan import Stage
from aligntune.run import Context, execute
from aligntune.stages import KINDS
from aligntune.work import Kind


def test_one_whose_code_exits_is_no_success(tmp_path, monkeypatch):
    monkeypatch.setitem(KINDS, "data", Kind(1, DataSlice, lambda work: sys.exit(0)))
    identity = {"config": {}}
    config = DataSlice.model_construct()
    stage = Stage("data", "data", "0" * 12, config, {}, {}, identity)
    context = Context(str(tmp_path), "", "first", None)
    with pytest.raises(AlignTuneError, match=r"data: something that it ran called exit\(0\)"):
        execute(stage, context, lambda *_: None, lambda: False)
