"""Answers behind one prompt in one row are scored as rows of their own are."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import build_tiny_gpt2, build_tiny_model
from trl.trainer.utils import add_fused_lm_head

from aligntune.models.load import load_policy
from aligntune.train.group_attention import attend_by_group
from aligntune.train.positions import count_from_mask
from aligntune.train.ppo import Critic
from aligntune.train.shared_prompt import agrees, by_prompt, pays, score, shared

KEEP = 7
TOLERANCE = 2e-5
"""Nats, in fp32."""


@pytest.fixture(params=["llama", "gpt2"])
def model(request, tmp_path):
    build = build_tiny_model if request.param == "llama" else build_tiny_gpt2
    made = load_policy(build(tmp_path / "model"), trust_remote_code=False)
    for module in made.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    count_from_mask(made)
    add_fused_lm_head(made, temperature=0.8, outputs=("log_probs", "entropy"))
    assert attend_by_group(made)
    return made.train()


@pytest.fixture
def batch():
    """Six answers, one of them empty, to three prompts in any order, one of a single token."""
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(5, 300, (size,), generator=generator) for size in (6, 1, 4)]
    ids, mask = (
        torch.zeros(6, 6 + KEEP, dtype=torch.long),
        torch.zeros(6, 6 + KEEP, dtype=torch.long),
    )
    for row, (number, size) in enumerate(((0, 7), (2, 3), (0, 1), (1, 5), (0, 0), (2, 7))):
        prompt = prompts[number]
        ids[row, 6 - len(prompt) : 6], mask[row, 6 - len(prompt) : 6] = prompt, 1
        ids[row, 6 : 6 + size] = torch.randint(5, 300, (size,), generator=generator)
        mask[row, 6 : 6 + size] = 1
    return ids, mask


def in_rows(model, ids, mask):
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :-KEEP] = -100
    found = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
    return found.log_probs[:, -KEEP:], found.entropy[:, -KEEP:]


def in_one(model, ids, mask, plain):
    row = shared(ids, mask, KEEP)
    found = score(model, row, temperature=0.8, plain=plain, entropy=True)
    return tuple(row.spread(each) for each in found)


def gradient(model, logps, entropies, mask):
    model.zero_grad()
    weights = torch.linspace(-1, 2, logps.numel()).view_as(logps) * mask[:, -KEEP:]
    (weights * (logps + 0.1 * entropies)).sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("how", ["whole", "adapter", "checkpointing"])
def test_log_probabilities_entropies_and_gradients_are_those_of_rows(model, batch, plain, how):
    if how == "adapter":
        config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    if how == "checkpointing":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ids, mask = batch
    theirs, ours = in_rows(model, ids, mask), in_one(model, ids, mask, plain)
    counted = mask[:, -KEEP:].bool()
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one[counted], other[counted], rtol=0, atol=TOLERANCE)
    pairs = zip(gradient(model, *theirs, mask), gradient(model, *ours, mask), strict=True)
    for expected, found in pairs:
        assert torch.allclose(expected, found, rtol=1e-3, atol=1e-5)


def test_a_row_has_every_prompt_once_and_every_answer(batch):
    ids, mask = batch
    row = shared(ids, mask, KEEP)
    answers = int(mask[:, -KEEP:].sum())
    assert len(row.targets) == answers
    # The last token of a prompt is counted with each of its answers.
    assert row.ids.size(1) == (6 - 1) + (1 - 1) + (4 - 1) + answers
    assert torch.equal(row.targets, ids[:, -KEEP:][mask[:, -KEEP:].bool()])


def test_values_of_the_critic_are_those_of_rows(model, batch):
    ids, mask = batch
    critic = Critic(model)
    torch.nn.init.normal_(critic.head.weight)
    row = shared(ids, mask, KEEP)
    with torch.no_grad(), critic.values() as heard:
        in_rows(model, ids, mask)
        in_one(model, ids, mask, plain=True)
    theirs, ours = heard[0][:, -KEEP - 1 : -1], row.spread(heard[1][0, -len(row.targets) :])
    counted = mask[:, -KEEP:].bool()
    assert torch.allclose(theirs[counted], ours[counted], atol=TOLERANCE)


def test_prompts_of_a_single_token_have_nothing_in_common(model):
    ids, mask = torch.randint(5, 300, (3, 1 + KEEP)), torch.ones(3, 1 + KEEP, dtype=torch.long)
    ids[:, 0] = 9
    with torch.no_grad():
        expected, found = in_rows(model, ids, mask), in_one(model, ids, mask, plain=True)
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, atol=TOLERANCE)


def test_a_batch_without_answers_is_no_row(batch):
    ids, mask = batch
    mask[:, -KEEP:] = 0
    assert shared(ids, mask, KEEP) is None


def test_a_model_that_fits_agrees(model):
    assert agrees(model)


def test_a_model_that_sees_other_answers_does_not(model, monkeypatch):
    """One whose attention is blind to where answers begin, and one that refuses the argument."""
    model.config._attn_implementation = "sdpa"
    assert not agrees(model)
    monkeypatch.setattr(type(model.base_model), "forward", lambda self, input_ids: None)
    assert not agrees(model)


def test_sharing_pays_where_answers_to_one_prompt_are_short(model):
    assert pays(model, 130, 64, answers=8)
    assert not pays(model, 130, 64, answers=1)
    assert not pays(model, 130, 64, answers=8, prompts=8)
    assert not pays(model, 10, 2000, answers=8)


def test_rows_are_dealt_by_prompt_and_none_is_lost():
    prompts = torch.tensor([3, 1, 2, 1, 3, 2, 1, 3])
    rows = {
        "prompt_ids": prompts[:, None],
        "prompt_mask": torch.ones(8, 1, dtype=torch.long),
        "advantages": torch.arange(8.0),
        "num_items_in_batch": torch.tensor(8),
    }
    halves = [
        {name: each[part] if each.dim() else each for name, each in rows.items()}
        for part in (slice(4), slice(4, 8))
    ]
    dealt = by_prompt(halves)
    assert [batch["prompt_ids"].flatten().tolist() for batch in dealt] == [
        [3, 3, 3, 1],
        [1, 1, 2, 2],
    ]
    assert [batch["advantages"].tolist() for batch in dealt] == [[0, 4, 7, 1], [3, 6, 2, 5]]
    assert all(batch["num_items_in_batch"] == 8 for batch in dealt)
