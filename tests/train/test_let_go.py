"""What a stage has held is gone before the next one."""

import gc
import weakref
from types import SimpleNamespace

import offline
import pytest
import transformers
from places import place
from slices import PLAIN
from tokens import write_split

from aligntune import stage_models
from aligntune.config.algo import TASK
from aligntune.config.slices import ReferenceSlice
from aligntune.work import Work

REFERENCE = ReferenceSlice(
    max_length=64, lm_head="auto", padding_free="auto",
    **{name: PLAIN[name] for name in (
        "precision", "attn_implementation", "quantization", "trust_remote_code", "processes",
    )},
)  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "algo", "config"),
    [
        (stage_models.train, "sft", offline.spec(max_steps=1)),
        (stage_models.precompute, "dpo", REFERENCE),
    ],
)
def test_a_model_is_gone_when_its_stage_ends(
    tiny_model, tmp_path, monkeypatch, stage, algo, config
):
    made = []
    begin = transformers.Trainer.__init__

    def noted(trainer, model, **given):
        begin(trainer, model, **given)
        made.extend((weakref.ref(trainer), weakref.ref(model)))

    monkeypatch.setattr(transformers.Trainer, "__init__", noted)
    data = write_split(tmp_path / "data", offline.ROWS[algo], TASK[algo], tiny_model)
    inputs = {
        "model": SimpleNamespace(path=tiny_model.parent),
        "data": SimpleNamespace(path=data, manifest=SimpleNamespace(facts={"digests": {}})),
    }
    setting = place(tmp_path)
    work = Work(
        key="key", config=config, sources={}, inputs=inputs, out=tmp_path, root=tmp_path,
        tracking_uri="", progress=setting.progress, stopping=setting.stopping,
    )  # fmt: skip
    gc.disable()  # it might come by
    try:
        stage(work)
        assert [there() for there in made] == [None, None]
    finally:
        gc.enable()
