"""The sampler draws what it should, and says what the model's own `generate` says."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import build_tiny_gpt2, build_tiny_model

from aligntune.errors import Diverged
from aligntune.models.load import load_policy
from aligntune.train.group_attention import attend_by_group
from aligntune.train.packed import can_pack, packed
from aligntune.train.sampling import Sampling, can_sample, drawn, sample

needs_bf16 = pytest.mark.skipif(not can_pack(), reason="this CPU or torch has no bf16 products")
PROMPTS = [[5, 6, 7, 8, 9, 10], [11, 12], [5, 6, 7, 8, 9, 10], [13, 14, 15, 16]]


@pytest.fixture(params=["llama", "gpt2"])
def policy(request, tmp_path):
    build = build_tiny_model if request.param == "llama" else build_tiny_gpt2
    return load_policy(build(tmp_path / "model"), trust_remote_code=False)


def adapted(model):
    config = LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM")
    made = get_peft_model(model, config)
    torch.manual_seed(0)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def greedy(model, ends=frozenset(), length=12):
    return sample(model, PROMPTS, Sampling(length, ends, pad=0, top_k=1))


def generated(model, ends=(), length=12):
    """By transformers, one prompt at a time, so that there is no padding."""
    answers = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        made = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=length,
            do_sample=False, eos_token_id=list(ends) or None, pad_token_id=0,
        )  # fmt: skip
        answers.append(made[0, len(prompt) :].tolist())
    return answers


@pytest.mark.parametrize("grouped", [False, True])
def test_the_likeliest_answers_are_those_of_generate(policy, grouped):
    model = policy.eval()
    model.generation_config.eos_token_id = None
    expected = generated(model)
    if grouped:
        assert attend_by_group(model)
    assert can_sample(model)
    assert greedy(model) == expected


def test_an_adapter_is_sampled_with(policy):
    model = adapted(policy).eval()
    model.generation_config.eos_token_id = None
    expected = generated(model)
    assert greedy(model) == expected
    with model.disable_adapter():
        assert greedy(model) != expected


def test_answers_end_with_the_token_that_ends_them_and_not_before(policy):
    model = policy.eval()
    model.generation_config.eos_token_id = None
    whole = greedy(model)
    ends = frozenset({whole[0][4], whole[1][7]})
    cut = [
        answer[: min((i for i, t in enumerate(answer) if t in ends), default=len(answer)) + 1]
        for answer in whole
    ]
    assert len({len(answer) for answer in cut}) > 1
    assert greedy(model, ends) == cut


def test_each_distinct_prompt_is_read_once(policy):
    read = []
    policy.eval().register_forward_pre_hook(
        lambda _, args, given: read.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    greedy(policy, length=3)
    assert read == [(3, 6), (4, 1), (4, 1)]


def test_tokens_are_drawn_as_often_as_they_are_likely():
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, 2.0, float("-inf"), -1.0])
    how = Sampling(1, frozenset(), pad=0, temperature=0.7)
    counts = drawn(logits.expand(20_000, -1), how).bincount(minlength=5) / 20_000
    assert torch.allclose(counts, (logits / 0.7).softmax(0), atol=0.015)
    assert counts[3] == 0


@pytest.mark.parametrize(("limits", "kept"), [({"top_k": 2}, {1, 2}), ({"top_p": 0.6}, {2})])
def test_only_what_is_allowed_is_drawn(limits, kept):
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0]).expand(500, -1)
    assert set(drawn(logits, Sampling(1, frozenset(), pad=0, **limits)).tolist()) == kept


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_probabilities_that_are_not_finite_are_an_error(broken):
    with pytest.raises(Diverged, match="not finite"):
        drawn(torch.tensor([[0.0, broken]]), Sampling(1, frozenset(), pad=0))


@needs_bf16
@pytest.mark.parametrize("with_adapter", [False, True])
def test_the_copy_computes_what_autocast_does(policy, with_adapter):
    """An adapter is merged into it, without its dropout."""
    for module in policy.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model = adapted(policy) if with_adapter else policy
    ids = torch.randint(1, 300, (4, 9))
    with torch.no_grad():
        exact = model.eval()(input_ids=ids).logits
        with torch.autocast("cpu", torch.bfloat16):
            usual = model(input_ids=ids).logits.float()
        with packed(model.train()):
            ours = model(input_ids=ids).logits.float()
    size = exact.abs().max()
    assert (ours - exact).abs().max() <= 2 * (usual - exact).abs().max() + 1e-3 * size
    assert (ours - exact).abs().max() > 0


@needs_bf16
def test_nothing_of_the_copy_stays(policy):
    model = adapted(policy).eval()
    ids = torch.randint(1, 300, (2, 5))
    before = model(input_ids=ids).logits
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), packed(model):
        raise KeyboardInterrupt
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.equal(model(input_ids=ids).logits, before)
    assert all(torch.equal(state[name], now) for name, now in model.state_dict().items())


@needs_bf16
def test_the_copy_follows_the_weights(policy):
    ids = torch.randint(1, 300, (2, 5))
    policy.eval()
    with torch.no_grad():
        with packed(policy):
            before = policy(input_ids=ids).logits
        for name, parameter in policy.named_parameters():
            if "mlp" in name:  # an embedding is never copied, and would tell of itself
                parameter.mul_(1.5)
        with packed(policy):
            after = policy(input_ids=ids).logits
    assert not torch.allclose(before, after)
