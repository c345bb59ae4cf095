"""Parameters by arithmetic against those of transformers' own models."""

import json

import pytest

from aligntune.estimate.shape import read_shape, shape_of

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 500,
}
GROUPED = SMALL | {"num_key_value_heads": 2}
GPT = {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 500}
NEO = {
    "hidden_size": 512,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 2000,
    "attention_types": [[["global", "local"], 1]],
}
FALCON = {name: value for name, value in SMALL.items() if name != "intermediate_size"}
FAMILIES = [
    ("llama", GROUPED),
    ("llama", GROUPED | {"tie_word_embeddings": True}),
    ("mistral", GROUPED),
    ("qwen2", GROUPED),
    ("qwen3", GROUPED | {"head_dim": 32}),
    ("gemma2", GROUPED | {"head_dim": 32}),
    ("gemma3_text", GROUPED | {"head_dim": 32}),
    ("phi3", GROUPED | {"pad_token_id": 0}),
    ("smollm3", GROUPED | {"pad_token_id": 0}),
    ("olmo2", SMALL),
    ("starcoder2", GROUPED),
    ("gpt2", GPT | {"n_positions": 100}),
    ("gpt_neox", SMALL),
    ("opt", {**SMALL, "ffn_dim": 160, "word_embed_proj_dim": 64}),
    ("bloom", GPT),
    ("gpt_bigcode", GPT | {"n_positions": 100}),
    ("gpt_neo", NEO),
    ("mpt", {"d_model": 64, "n_layers": 3, "n_heads": 4, "vocab_size": 500}),
    ("falcon", FALCON),
    ("falcon", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    ("phi", SMALL),
    ("mixtral", GROUPED),
    ("qwen3_moe", GROUPED | {"num_experts": 8, "moe_intermediate_size": 32, "head_dim": 32}),
]


@pytest.mark.parametrize(("family", "settings"), FAMILIES)
def test_parameters_are_those_of_the_model(family, settings):
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **settings)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = shape_of(json.loads(config.to_json_string()))
    assert shape.parameters == pytest.approx(model.num_parameters(), rel=0.003)


def test_lora_has_the_parameters_that_peft_adds():
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    for family, settings in (("llama", GROUPED), ("gpt2", GPT)):
        config = AutoConfig.for_model(family, **settings)
        for targets in ("all-linear", ("q_proj", "down_proj") if family == "llama" else ("c_fc",)):
            names = targets if isinstance(targets, str) else list(targets)
            asked = LoraConfig(r=4, target_modules=names, task_type="CAUSAL_LM")
            model = get_peft_model(AutoModelForCausalLM.from_config(config), asked)
            trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
            assert shape_of(json.loads(config.to_json_string())).adapter(4, targets) == trained


def test_of_experts_only_those_that_see_a_token_count_as_active():
    many = GROUPED | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    two = shape_of(many | {"num_local_experts": 2})
    assert shape_of(many).active == pytest.approx(two.active, rel=0.01)
    assert shape_of(many).parameters > 2 * two.parameters


def test_the_language_model_of_a_multimodal_one_is_read():
    assert shape_of({"model_type": "gemma3", "text_config": GROUPED}).hidden == 64


@pytest.mark.parametrize("text", ["{}", "[1]", "no json", '{"hidden_size": "big"}'])
def test_what_says_no_dimensions_has_no_shape(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    assert read_shape(tmp_path) is None


def test_a_directory_without_a_config_has_no_shape(tmp_path):
    assert read_shape(tmp_path) is None
