"""What is saved can be loaded anywhere, is the same, and says nothing of this machine."""

import json
import resource

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from aligntune.errors import Diverged, ResourceError
from aligntune.models.load import load_policy, load_tokenizer
from aligntune.models.save import save_policy

IDS = torch.arange(20)[None]


@pytest.fixture
def policy(tiny_model):
    return load_policy(tiny_model, trust_remote_code=False)


@pytest.fixture
def tokenizer(tiny_model):
    return load_tokenizer(tiny_model)


@pytest.fixture
def lora(policy):
    """The policy with an adapter that does something."""
    torch.manual_seed(0)
    model = get_peft_model(
        policy, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_saving_and_loading_changes_no_bit(policy, tokenizer, tmp_path):
    save_policy(policy, tokenizer, tmp_path)
    loaded = load_policy(tmp_path / "model", trust_remote_code=False)
    assert loaded.state_dict().keys() == policy.state_dict().keys()
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, policy.state_dict()[name]), name
        assert weight.dtype == torch.float32
    assert loaded.config.to_diff_dict() == policy.config.to_diff_dict()
    assert loaded.generation_config.to_dict() == policy.generation_config.to_dict()
    again = load_tokenizer(tmp_path / "model")
    text = "<|im_start|>user\nWhat is  12?<|im_end|>"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.chat_template == tokenizer.chat_template


def test_a_saved_model_is_its_own_files_and_no_more(policy, tokenizer, tmp_path):
    save_policy(policy, tokenizer, tmp_path)
    assert files(tmp_path) == [
        "model/chat_template.jinja",
        "model/config.json",
        "model/generation_config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
    ]
    modes = {path.stat().st_mode for path in (tmp_path / "model").iterdir()}
    assert len(modes) == 1


def test_an_adapter_is_saved_alone_and_merged(lora, tokenizer, tiny_model, tmp_path):
    with torch.no_grad():
        expected = lora.eval()(IDS).logits
        base = load_policy(tiny_model, trust_remote_code=False)(IDS).logits
    save_policy(lora, tokenizer, tmp_path)
    assert files(tmp_path / "adapter") == ["adapter_config.json", "adapter_model.safetensors"]
    with torch.no_grad():
        merged = load_policy(tmp_path / "model", trust_remote_code=False)(IDS).logits
        fresh = load_policy(tiny_model, trust_remote_code=False)
        adapted = PeftModel.from_pretrained(fresh, str(tmp_path / "adapter")).eval()(IDS).logits
    assert not torch.allclose(base, expected, atol=1e-3)
    torch.testing.assert_close(merged, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(adapted, expected)


def test_nothing_saved_names_a_place_on_this_machine(lora, tokenizer, tiny_model, tmp_path):
    save_policy(lora, tokenizer, tmp_path)
    texts = [p for p in tmp_path.rglob("*") if p.suffix in {".json", ".jinja", ".md"}]
    assert len(texts) >= 6
    for path in texts:
        content = path.read_text()
        assert str(tiny_model) not in content, path
        assert str(tmp_path) not in content, path
        assert "local_files_only" not in content, path


def test_the_hub_name_of_an_adapters_base_is_kept(lora, tokenizer, tmp_path):
    lora.peft_config["default"].base_model_name_or_path = "owner/base"
    save_policy(lora, tokenizer, tmp_path)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "owner/base"
    assert config["target_modules"] == sorted(config["target_modules"])


def test_a_second_adapter_kept_as_reference_is_neither_saved_nor_merged(lora, tokenizer, tmp_path):
    with torch.no_grad():
        expected = lora.eval()(IDS).logits
    lora.add_adapter("ref", lora.peft_config["default"])
    save_policy(lora, tokenizer, tmp_path)
    assert not (tmp_path / "adapter" / "ref").exists()
    with torch.no_grad():
        merged = load_policy(tmp_path / "model", trust_remote_code=False)(IDS).logits
    torch.testing.assert_close(merged, expected, atol=1e-4, rtol=1e-4)


def test_a_base_in_fewer_bits_is_merged_from_the_weights_on_the_disk(
    tiny_model, tokenizer, tmp_path
):
    """So that the adapter is added to what the base is, and is not rounded with it."""
    rounded = load_policy(tiny_model, trust_remote_code=False).to(torch.bfloat16)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["down_proj"])
    model = get_peft_model(rounded, config)
    torch.manual_seed(0)
    weights = dict(model.named_parameters())
    layer = "base_model.model.model.layers.0.mlp.down_proj"
    torch.nn.init.normal_(weights[f"{layer}.lora_B.default.weight"], std=0.1)
    a, b = (weights[f"{layer}.lora_{x}.default.weight"].detach().float() for x in "AB")
    save_policy(model, tokenizer, tmp_path)
    merged = load_policy(tmp_path / "model", trust_remote_code=False).state_dict()
    base = load_policy(tiny_model, trust_remote_code=False).state_dict()
    name = "model.layers.0.mlp.down_proj.weight"
    expected = base[name] + config.lora_alpha / config.r * b @ a
    torch.testing.assert_close(merged.pop(name), expected)
    assert all(torch.equal(weight, base[name]) for name, weight in merged.items())


def test_training_does_not_turn_the_cache_off_for_good(policy, tokenizer, tmp_path):
    policy.config.use_cache = False
    save_policy(policy, tokenizer, tmp_path)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["use_cache"] is True


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_weight_that_is_not_finite_leaves_nothing_behind(policy, tokenizer, tmp_path, value):
    name = "model.layers.1.mlp.down_proj.weight"
    policy.get_parameter(name).data[3, 5] = value
    with pytest.raises(Diverged, match=name):
        save_policy(policy, tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_is_not_finite_leaves_nothing_behind(lora, tokenizer, tmp_path):
    name = next(
        name for name, _ in lora.named_parameters() if "layers.1" in name and "lora_B" in name
    )
    lora.get_parameter(name).data[0, 0] = float("nan")
    with pytest.raises(Diverged, match=name):
        save_policy(lora, tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_overflows_its_base_leaves_nothing_behind(lora, tokenizer, tmp_path):
    for name, parameter in lora.named_parameters():
        if "lora_" in name:
            parameter.data.fill_(1e30)
    with pytest.raises(Diverged, match="merged"):
        save_policy(lora, tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_of_its_own(policy, tokenizer, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(ResourceError, match="make room"):
            save_policy(policy, tokenizer, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_an_earlier_attempts_shards_are_gone(policy, tokenizer, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors.index.json").write_text("{}")
    save_policy(policy, tokenizer, tmp_path)
    assert not (tmp_path / "model" / "model.safetensors.index.json").exists()
