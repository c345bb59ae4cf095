"""GPT-2 and DialoGPT: Conv1D layers, no padding token, no chat template."""

import pytest
import rollouts
import torch
from offline import make, run, spec
from peft import PeftModel
from places import place
from safetensors.torch import load_file
from tiny import build_tiny_gpt2

from aligntune.config.train import Peft
from aligntune.models.load import load_policy, load_tokenizer
from aligntune.models.prepare import prepare
from aligntune.models.save import save_policy
from aligntune.models.source import locate
from aligntune.train.policy import TRAINERS

LORA = Peft(r=4, alpha=8)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A prepared model directory."""
    folder = tmp_path_factory.mktemp("gpt2")
    source = build_tiny_gpt2(folder / "source")
    prepare(locate(str(source)), folder / "model", chat_template=None, trust_remote_code=False)
    return folder / "model"


def test_what_is_published_lacks_both(tmp_path):
    own = load_tokenizer(build_tiny_gpt2(tmp_path / "source"))
    assert (own.pad_token, own.chat_template) == (None, None)


def test_the_end_is_learned_although_padding_is_the_same_token(gpt2, tmp_path):
    trainer = make(gpt2, spec(), place(tmp_path), [
        {"messages": [{"role": "user", "content": "say"}, {"role": "assistant", "content": text}]}
        for text in ("a", "a long answer of many tokens")
    ])  # fmt: skip
    tokenizer = load_tokenizer(gpt2)
    end = tokenizer.eos_token_id
    assert tokenizer.pad_token_id == end
    (batch,) = trainer.get_train_dataloader()
    for labels, mask in zip(batch["labels"], batch["attention_mask"], strict=True):
        counted = labels[labels != -100].tolist()
        assert counted.count(end) == 1
        assert counted[-1] == end
        assert (labels[mask == 0] == -100).all()
    assert (batch["attention_mask"] == 0).any()


def test_dpo_counts_the_end_of_both_answers(gpt2, tmp_path):
    trainer = make(gpt2, spec("dpo"), place(tmp_path))
    end = load_tokenizer(gpt2).eos_token_id
    for row in trainer.train_dataset:
        assert row["chosen_ids"][-1] == end
        assert row["rejected_ids"][-1] == end
    batch = next(iter(trainer.get_train_dataloader()))
    for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True):
        counted = ids[mask.bool()].tolist()
        assert counted.count(end) == 1
        assert counted[-1] == end


@pytest.mark.parametrize("peft", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("algo", ["sft", "dpo"])
def test_it_trains_and_what_is_saved_is_what_was_trained(gpt2, tmp_path, algo, peft):
    chosen = spec(algo, peft, max_steps=2, learning_rate=1e-2)
    trainer = run(gpt2, chosen, place(tmp_path))
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        expected = trainer.model.eval()(ids).logits
    save_policy(trainer.model, load_tokenizer(gpt2), tmp_path)
    loaded = load_policy(tmp_path / "model", trust_remote_code=False)
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, expected, atol=1e-5, rtol=1e-4)
        before = load_policy(gpt2, trust_remote_code=False)
        assert not torch.allclose(before(ids).logits, expected, atol=1e-3)
        if peft:
            adapted = PeftModel.from_pretrained(before, str(tmp_path / "adapter")).eval()
            torch.testing.assert_close(adapted(ids).logits, expected)
    assert loaded.generation_config.pad_token_id == loaded.generation_config.eos_token_id


def test_all_linear_is_every_conv1d_and_not_the_head(gpt2, tmp_path):
    trainer = run(gpt2, spec(peft=LORA, max_steps=1), place(tmp_path))
    save_policy(trainer.model, load_tokenizer(gpt2), tmp_path)
    names = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    layers = {name.partition(".lora_")[0].rpartition("transformer.")[2] for name in names}
    inner = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert layers == {f"h.{layer}.{name}" for layer in (0, 1) for name in inner}


def test_the_end_is_learned_in_fact(gpt2, tmp_path):
    """Greedy answers stop where the rows do."""
    chosen = spec(max_steps=60, learning_rate=1e-2, per_device_batch_size=8)
    trainer = run(gpt2, chosen, place(tmp_path), [
        {"messages": [{"role": "user", "content": "say it"},
                      {"role": "assistant", "content": "the red cat"}]}
    ] * 8)  # fmt: skip
    tokenizer = load_tokenizer(gpt2)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "say it"}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    out = trainer.model.eval().generate(**asked, max_new_tokens=20, do_sample=False)
    said = tokenizer.decode(out[0, asked["input_ids"].shape[1] :])
    assert said == f" the red cat{tokenizer.eos_token}"


@pytest.mark.parametrize("algo", ["grpo", "ppo"])
@pytest.mark.parametrize("peft", [None, LORA], ids=["full", "lora"])
def test_a_padded_prompt_is_scored_as_it_was_answered(gpt2, tmp_path, monkeypatch, algo, peft):
    """Learned positions start behind the padding, as they do while sampling; also the reference's
    and the critic's."""
    monkeypatch.setattr(
        "aligntune.train.reward_functions.scorer", lambda reward: lambda s: [1.0] * len(s)
    )
    weight = {"kl_coef": 0.1} if algo == "ppo" else {"beta": 0.1}
    wanted = rollouts.spec(algo, peft, max_length=60, max_completion_length=6, **weight)
    trainer = rollouts.make(TRAINERS[algo], gpt2, wanted, place(tmp_path))
    if algo == "ppo":
        torch.nn.init.normal_(trainer.critic.head.weight)
    ids = torch.arange(10, 30)[None]
    padded = torch.nn.functional.pad(ids, (7, 0), value=trainer.processing_class.pad_token_id)
    found = []
    for tokens in (ids, padded):
        mask = (torch.arange(tokens.size(1)) >= tokens.size(1) - 20).long()[None]
        models = (
            [trainer.model] if trainer.ref_model is None else [trainer.model, trainer.ref_model]
        )
        with torch.no_grad():
            scores = []
            for model in models:
                scores.append(trainer._get_per_token_logps_and_entropies(model, tokens, mask, 6)[0])
                scores += [trainer._values] if getattr(trainer, "_values", None) is not None else []
        found.append(scores)
    assert len(found[0]) == 1 + (peft is None) + (algo == "ppo")
    for plain, shifted in zip(*found, strict=True):
        assert torch.allclose(plain, shifted, atol=1e-5)
