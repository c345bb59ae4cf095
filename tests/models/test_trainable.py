"""A model is loaded with the kernels and in the bits that are asked for, or it is said why not.

There is no GPU here, so what only works on one is replaced by notes of how it was called.
"""

import sys
import types

import pytest
import torch
from offline import spec
from peft import LoraConfig, PeftModel, get_peft_model

from aligntune.config.train import Peft
from aligntune.errors import ConfigError
from aligntune.models import quantization, unsloth
from aligntune.models.load import load_policy
from aligntune.models.trainable import load_trainable

LORA = Peft(r=4, alpha=8)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU and every package, as far as anybody looks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for module in (quantization, unsloth):
        monkeypatch.setattr(module, "find_spec", lambda name: True)


@pytest.fixture
def fast(monkeypatch, gpu, tiny_model):
    """unsloth's entry points, which note their arguments and return transformers' model."""
    calls = {}

    class FastLanguageModel:
        @staticmethod
        def from_pretrained(**settings):
            calls["load"] = settings
            return load_policy(tiny_model, trust_remote_code=False), None

        @staticmethod
        def get_peft_model(model, **settings):
            calls["peft"] = settings
            return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=settings["r"]))

    package = types.ModuleType("unsloth")
    package.FastLanguageModel = FastLanguageModel
    monkeypatch.setitem(sys.modules, "unsloth", package)
    monkeypatch.delenv("UNSLOTH_RETURN_LOGITS", raising=False)
    return calls


def refused(path, message, **settings):
    with pytest.raises(ConfigError, match=message) as caught:
        load_trainable(path, spec(**settings))
    assert "\n" not in str(caught.value)


def test_without_any_of_it_the_weights_are_fp32(tiny_model):
    model = load_trainable(tiny_model, spec())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not isinstance(model, PeftModel)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_the_attention_kernel(tiny_model, kernel):
    model = load_trainable(tiny_model, spec(attn_implementation=kernel))
    assert model.config._attn_implementation == kernel


def test_flash_attention_needs_a_gpu_half_precision_and_its_package(tiny_model, monkeypatch):
    flash = {"attn_implementation": "flash_attention_2"}
    refused(tiny_model, "needs a GPU", **flash)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    refused(tiny_model, "cannot compute in fp32", **flash)
    monkeypatch.setattr("aligntune.models.trainable.find_spec", lambda name: None)
    refused(tiny_model, "`pip install flash-attn`", precision="bf16", **flash)


def test_quantization_needs_an_adapter_a_gpu_and_its_package(tiny_model, monkeypatch):
    refused(tiny_model, "add a `peft` section", quantization="4bit")
    refused(tiny_model, "needs a CUDA GPU", quantization="4bit", peft=LORA)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    refused(tiny_model, "`pip install bitsandbytes`", quantization="8bit", peft=LORA)


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantization_is_what_transformers_is_asked_for(gpu, bits):
    options = quantization.quantized(spec(quantization=bits, peft=LORA, precision="bf16"))
    config = options["quantization_config"]
    assert (config.load_in_4bit, config.load_in_8bit) == (bits == "4bit", bits == "8bit")
    assert config.bnb_4bit_quant_type == "nf4"
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert options["device_map"] == {"": 0}
    assert quantization.quantized(spec()) == {}


def test_unsloth_needs_its_package_and_a_gpu(tiny_model, monkeypatch):
    refused(tiny_model, "`pip install unsloth`", use_unsloth=True)
    monkeypatch.setattr(unsloth, "find_spec", lambda name: True)
    refused(tiny_model, "needs a GPU", use_unsloth=True)


def test_unsloth_gets_every_setting_and_puts_the_adapter_on(tiny_model, fast):
    chosen = spec(peft=LORA, use_unsloth=True, quantization="4bit", precision="bf16",
                  gradient_checkpointing=True, max_length=48)  # fmt: skip
    model = load_trainable(tiny_model, chosen)
    assert isinstance(model, PeftModel)
    loaded = fast["load"]
    assert loaded["model_name"] == str(tiny_model)
    assert loaded["max_seq_length"] == 48
    assert (loaded["load_in_4bit"], loaded["load_in_8bit"]) == (True, False)
    assert loaded["full_finetuning"] is False
    assert loaded["dtype"] == torch.bfloat16
    assert loaded["trust_remote_code"] is False
    assert fast["peft"] == {
        "r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "target_modules": "all-linear",
        "use_gradient_checkpointing": True,
        "random_state": 1,
    }


def test_unsloth_without_an_adapter_trains_fp32_weights(tiny_model, fast):
    model = load_trainable(tiny_model, spec(use_unsloth=True))
    assert not isinstance(model, PeftModel)
    assert "peft" not in fast
    assert fast["load"]["full_finetuning"] is True
    assert fast["load"]["float32_mixed_precision"] is True
    assert (fast["load"]["load_in_4bit"], fast["load"]["load_in_8bit"]) == (False, False)


def test_a_target_that_is_no_layer_is_named_beside_those_that_are(tiny_model):
    wrong = Peft(target_modules=("q_proj", "c_attn"))
    refused(tiny_model, r"no layer 'c_attn'.*down_proj, gate_proj", peft=wrong)
    right = Peft(target_modules=("q_proj", "layers.0.mlp.up_proj"))
    assert load_trainable(tiny_model, spec(peft=right))


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("lm_head", "is the output layer, which"),
        ("embed_tokens", "is the output layer too"),
        ("input_layernorm", "is no linear layer"),
        ("self_attn", "is no linear layer"),
    ],
)
def test_a_layer_that_cannot_have_an_adapter_is_named_with_those_that_can(tiny_model, target, why):
    """The embedding is the tiny model's output layer: merged, its adapter would change both."""
    known = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj$"
    wrong = Peft(target_modules=("q_proj", target))
    refused(tiny_model, f"'{target}' {why}.*layers are {known}", peft=wrong)
