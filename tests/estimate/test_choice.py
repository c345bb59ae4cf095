import pytest
from slices import train_slice

from aligntune.config.presets import resolved
from aligntune.config.train import Train
from aligntune.estimate.choice import FILE, MARGIN, SET, applied, choose, recall, remember
from aligntune.estimate.memory import Choice, training_memory
from aligntune.estimate.room import Room
from aligntune.estimate.shape import Shape

SHAPE = Shape(hidden=64, layers=4, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocab=900)


def spec(checkpointing="auto", head="auto", algo="sft"):
    train = resolved(Train(per_device_batch_size=2), algo, None, 128)
    if train.lm_head:
        train = train.model_copy(update={"lm_head": head})
    return train_slice(algo, train, gradient_checkpointing=checkpointing)


def room_for(choice):
    """Just enough for it, with the margin."""
    return int(training_memory(SHAPE, spec(), choice).total / MARGIN) + 9


@pytest.mark.parametrize(
    ("missing", "made"),
    [(0, Choice(False, plain_head=True)), (99, Choice(True, plain_head=True))],
)
def test_activations_are_kept_where_they_fit_with_a_margin(missing, made):
    free = room_for(Choice(False, plain_head=True)) - missing
    found = choose(spec(), SHAPE, Room("cpu", free))
    assert found == made
    assert ("do not fit" in found.reasons["gradient_checkpointing"]) is bool(missing)


@pytest.mark.parametrize(
    ("shape", "room", "why"),
    [
        (SHAPE, Room("gpu", 80 * 2**30), "a GPU"),
        (None, Room("cpu", 80 * 2**30), "the model's dimensions are not known"),
        (SHAPE, Room("cpu", None), "free memory is not known"),
        (SHAPE, Room("cpu", 9), "do not fit"),
    ],
)
def test_nothing_is_kept_where_nothing_says_that_it_is_better(shape, room, why):
    made = choose(spec(), shape, room)
    assert made == Choice(True)
    assert all(why in reason for reason in made.reasons.values())


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("head", ["plain", "chunked"])
def test_what_is_set_is_no_choice(asked, head):
    made = choose(spec(asked, head), SHAPE, Room("cpu", 1))
    assert applied(spec(asked, head), made) == spec(asked, head)
    assert set(made.reasons.values()) == {SET}


def test_what_was_chosen_takes_the_place_of_auto():
    assert applied(spec(), Choice(False)) == spec(False, "chunked")
    assert applied(spec(), Choice(True, plain_head=True)) == spec(True, "plain")
    assert applied(spec(algo="reward"), Choice(False)) == spec(False, algo="reward")


@pytest.mark.parametrize("computed", [True, False])
def test_the_head_of_dpo_is_the_one_that_its_reference_was_computed_with(computed):
    dpo = spec(algo="dpo")
    train = dpo.train.model_copy(update={"precompute_ref_log_probs": computed})
    made = choose(dpo.model_copy(update={"train": train}), SHAPE, Room("cpu", 9))
    assert made.plain_head is computed
    assert applied(dpo, made).train == dpo.train


def test_only_what_the_algorithm_has_is_decided():
    made = choose(spec(algo="reward"), SHAPE, Room("cpu", 2**30))
    assert list(made.reasons) == ["gradient_checkpointing"]


def test_a_choice_is_remembered_and_a_damaged_one_is_not(tmp_path):
    made = choose(spec(), SHAPE, Room("cpu", 2**30))
    assert recall(tmp_path) is None
    remember(made, tmp_path)
    assert (recall(tmp_path), recall(tmp_path).reasons) == (made, made.reasons)
    (tmp_path / FILE).write_text('{"gradient_che')
    assert recall(tmp_path) is None
