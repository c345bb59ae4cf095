"""vLLM samples through TRL: its arguments are passed on, and where it is missing that is said."""

from types import SimpleNamespace

import pytest
import torch
from places import place
from rollouts import letters, make, spec
from trl.generation.vllm_generation import VLLMGeneration

from aligntune.config.train import Peft, Vllm
from aligntune.errors import ConfigError
from aligntune.models.load import load_policy
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


@pytest.mark.parametrize("algo", ["ppo", "grpo"])
@pytest.mark.parametrize("peft", [None, Peft(r=4)], ids=["full", "lora"])
def test_it_gets_the_weights_of_the_policy_and_no_others(
    tiny_model, tmp_path, monkeypatch, algo, peft
):
    """vLLM itself refuses a name that its model does not have, as the value head's."""
    sent = []
    model = SimpleNamespace(load_weights=lambda pairs: sent.extend(name for name, _ in pairs))
    worker = SimpleNamespace(model_runner=SimpleNamespace(model=model))
    executor = SimpleNamespace(driver_worker=worker)
    engine = SimpleNamespace(
        llm_engine=SimpleNamespace(model_executor=executor), reset_prefix_cache=lambda: None
    )
    monkeypatch.setattr(VLLMGeneration, "_init_vllm", lambda self: setattr(self, "llm", engine))
    monkeypatch.setattr(online, "_sampler", lambda vllm: {"use_vllm": True})
    monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda reward: letters)
    trainer = make(TRAINERS[algo], tiny_model, spec(algo, peft), place(tmp_path))
    trainer.vllm_generation.sync_weights()
    policy = load_policy(tiny_model, trust_remote_code=False)
    assert sorted(sent) == sorted(name for name, _ in policy.named_parameters())
