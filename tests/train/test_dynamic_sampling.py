"""DAPO: useless groups are replaced, long answers are punished."""

import pytest
import torch
from places import at_look, place
from rollouts import ROWS, curve, make, run, spec

from aligntune.errors import Interrupted
from aligntune.losses.policy import informative
from aligntune.train.dynamic_sampling import Sampled, joined, refilled
from aligntune.train.policy import TRAINERS


def sampled(merits, width=2, answers=2, first=0):
    """Groups of answers whose tokens are their number."""
    rows = len(merits)
    ids = torch.arange(first, first + rows)[:, None].repeat(1, width)
    mask = torch.ones_like(ids)
    out = {
        "prompt_ids": ids, "prompt_mask": mask, "completion_ids": ids, "completion_mask": mask,
        "advantages": torch.tensor(merits), "num_items_in_batch": torch.tensor(7),
    }  # fmt: skip
    values = torch.tensor(merits)
    return Sampled(out, values, values, [{"row": first + i} for i in range(rows)])


def numbers(found):
    return [row["row"] for row in found.inputs]


def test_useless_groups_are_replaced_by_the_first_useful_ones():
    asked = []

    def more(number, groups):
        asked.append((number, groups))
        return sampled([1.0, 1.0, 0.0, 1.0], width=3, first=10 * number)

    found, rounds = refilled(
        sampled([1.0, 1.0, 0.0, 1.0, 0.0, 0.0]), answers=2, rounds=5, pad_id=99, more=more,
        most=lambda lacking: lacking,
    )  # fmt: skip
    assert asked == [(1, 2), (2, 1)]
    assert rounds == 2
    assert numbers(found) == [2, 3, 12, 13, 22, 23]
    assert informative(found.merits.view(-1, 2)).all()
    assert found.out["completion_ids"][:3].tolist() == [[2, 2, 99], [3, 3, 99], [12, 12, 12]]
    assert found.out["completion_mask"][:3].tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    assert found.out["prompt_ids"][0].tolist() == [99, 2, 2]
    assert found.out["prompt_mask"][0].tolist() == [0, 1, 1]


def test_what_cannot_be_replaced_stays_after_the_last_round():
    found, rounds = refilled(
        sampled([0.0, 0.0, 0.0, 1.0]), answers=2, rounds=2, pad_id=0,
        more=lambda number, groups: sampled([1.0, 1.0], first=10 * number),
        most=lambda lacking: lacking,
    )  # fmt: skip
    assert rounds == 2
    assert numbers(found) == [2, 3, 0, 1]


def test_a_process_that_has_enough_samples_on_while_another_lacks_some():
    calls = []

    def more(number, groups):
        calls.append(groups)
        return sampled([0.0, 1.0, 0.0, 1.0], first=10)

    found, _ = refilled(
        sampled([0.0, 1.0]), answers=2, rounds=1, pad_id=0, more=more, most=lambda lacking: 2
    )
    assert calls == [2]
    assert numbers(found) == [0, 1]


def test_joining_keeps_what_has_no_rows():
    both = joined([sampled([0.0, 1.0]), sampled([1.0, 0.0])], 0)
    assert int(both.out["num_items_in_batch"]) == 7
    assert both.out["advantages"].tolist() == [0, 1, 1, 0]


@pytest.fixture
def rewards(monkeypatch):
    known = {}
    monkeypatch.setattr(
        "aligntune.train.reward_functions.scorer", lambda reward: known[reward.reward_type]
    )
    return known


def picky(samples):
    """Every answer to two thirds of the prompts is worth the same."""
    words = {"red", "blue", "sun", "moon", "tree"}
    return [
        0.5 if sample.answer in words else len(set(sample.completion)) / 10 for sample in samples
    ]


DAPO = {"per_device_batch_size": 16, "num_generations": 4, "max_steps": 4, "overlong_buffer": 0}


def test_batches_are_full_of_useful_groups(tiny_model, tmp_path, rewards):
    rewards["toy"] = picky
    useful = {}
    for rounds in (0, 8):
        made = place(tmp_path / str(rounds))
        run(TRAINERS["dapo"], tiny_model, spec("dapo", max_resampling=rounds, **DAPO), made)
        if rounds:
            assert curve(made, "train/resampling/useful_groups") == [1.0] * 4
            assert max(curve(made, "train/resampling/rounds")) > 0
        useful[rounds] = sum(norm > 0 for norm in curve(made, "train/grad_norm"))
    assert useful[8] == 4
    assert useful[0] <= 4


def test_a_stream_of_useless_groups_ends_after_the_last_round(tiny_model, tmp_path, rewards):
    rewards["toy"] = lambda samples: [1.0 for _ in samples]
    made = place(tmp_path / "out")
    run(TRAINERS["dapo"], tiny_model, spec("dapo", max_resampling=2, **DAPO), made)
    assert curve(made, "train/resampling/rounds") == [2.0] * 4
    assert curve(made, "train/resampling/useful_groups") == [0.0] * 4
    assert curve(made, "train/grad_norm") == [0.0] * 4


def test_replaced_groups_are_the_same_after_an_interruption(tiny_model, tmp_path, rewards):
    rewards["toy"] = picky
    wanted = spec("dapo", max_resampling=3, num_iterations=2, **DAPO | {"max_steps": 5})
    whole = run(TRAINERS["dapo"], tiny_model, wanted, place(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        run(TRAINERS["dapo"], tiny_model, wanted, place(tmp_path / "half", stopping=at_look(3)))
    half = run(TRAINERS["dapo"], tiny_model, wanted, place(tmp_path / "half"))
    expected, got = whole.model.state_dict(), half.model.state_dict()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_normalised_by_the_tokens_that_are_learned_from(tiny_model, tmp_path, rewards):
    rewards["toy"] = picky
    made = place(tmp_path / "out")
    trainer = make(TRAINERS["dapo"], tiny_model, spec("dapo", max_resampling=8, **DAPO), made, ROWS)
    out = trainer._generate_and_score_completions(
        [row for row in list(trainer.train_dataset)[:4] for _ in range(4)]
    )
    assert int(out["num_items_in_batch"]) == int(out["completion_mask"].sum())


def test_answers_are_punished_for_the_last_tokens_before_the_limit(tiny_model, tmp_path, rewards):
    rewards["toy"] = lambda samples: [1.0 for _ in samples]
    made = place(tmp_path / "out")
    wanted = spec("dapo", **DAPO | {"overlong_buffer": 5, "max_completion_length": 20})
    trainer = make(TRAINERS["dapo"], tiny_model, wanted, made)
    punish = trainer.reward_funcs[-1]
    lengths = (15, 16, 20, 21)
    found = punish(completion_ids=[[1] * length for length in lengths])
    assert found == pytest.approx([0, -0.2, -1, -1])
    assert trainer.reward_func_names[1:] == ["soft_overlong"]
    assert trainer.reward_weights.tolist() == [0.0, 0.0, 1.0]


def test_length_alone_does_not_make_a_group_useful(tiny_model, tmp_path, rewards):
    rewards["toy"] = lambda samples: [1.0 for _ in samples]
    made = place(tmp_path / "out")
    wanted = spec("dapo", max_resampling=1, **DAPO | {"overlong_buffer": 8})
    run(TRAINERS["dapo"], tiny_model, wanted, made)
    assert curve(made, "train/resampling/useful_groups") == [0.0] * 4
    assert min(curve(made, "train/rewards/soft_overlong/mean")) < 0
