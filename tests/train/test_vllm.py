"""vLLM samples through TRL: its arguments are passed on, and where it is missing that is said."""

import pytest
import torch
from places import place
from rollouts import make, spec

from aligntune.config.train import Vllm
from aligntune.errors import ConfigError
from aligntune.train import online
from aligntune.train.policy import TRAINERS
from aligntune.train.rollout import OnlineConfig


def test_without_vllm_one_sentence_says_so(tiny_model, tmp_path):
    wanted = spec("grpo", vllm=Vllm())
    with pytest.raises(ConfigError, match=r"train\.vllm needs a GPU and the package vllm"):
        make(TRAINERS["grpo"], tiny_model, wanted, place(tmp_path / "out"))


def test_its_settings_reach_trl(monkeypatch):
    monkeypatch.setattr(online, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert online._sampler(Vllm()) == {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": 0.3,
        "vllm_tensor_parallel_size": 1,
    }
    server = Vllm(mode="server", server_base_url="http://127.0.0.1:8000")
    given = online._sampler(server)
    assert given["vllm_server_base_url"] == "http://127.0.0.1:8000"
    known = OnlineConfig.__dataclass_fields__
    assert given.keys() <= known.keys()
    assert online._sampler(None) == {}
