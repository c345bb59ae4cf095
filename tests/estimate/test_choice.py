import pytest
from slices import train_slice

from aligntune.config.presets import resolved
from aligntune.config.train import Peft, Train
from aligntune.errors import ResourceError
from aligntune.estimate.choice import (
    AGAIN,
    FILE,
    IMPOSSIBLE,
    MARGIN,
    SET,
    applied,
    choose,
    made,
    recall,
    remedy,
    remember,
    told,
)
from aligntune.estimate.memory import Choice, training_memory
from aligntune.estimate.room import Room
from aligntune.estimate.shape import Shape

SHAPE = Shape(hidden=64, layers=4, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocab=900)


MANY = Shape(hidden=64, layers=9, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocab=90)
"""With a cache of keys and values that takes more than an update."""
PLENTY = Room("cpu", 2**40)
ONLINE = ("own_sampler", "generation_copy", "shared_prompts")


def spec(checkpointing="auto", head="auto", algo="sft", free="auto", precision="fp32", **train):
    made = resolved(Train(per_device_batch_size=2, **train), algo, None, 128)
    if made.lm_head:
        made = made.model_copy(update={"lm_head": head, "padding_free": free})
    return train_slice(algo, made, gradient_checkpointing=checkpointing, precision=precision)


def online(**train):
    """One that samples much at once."""
    return spec(True, "chunked", "grpo", precision="bf16", steps_per_generation=64, **train)


def room_for(choice, wanted=None, shape=SHAPE):
    """Just enough for it, with the margin."""
    return int(training_memory(shape, wanted or spec(), choice).total / MARGIN) + 9


@pytest.mark.parametrize("missing", [0, 99])
def test_activations_are_kept_where_they_fit_with_a_margin(missing):
    kept = Choice(bool(missing), plain_head=True, padding_free=True)
    free = room_for(Choice(False, plain_head=True)) - missing
    found = choose(spec(), SHAPE, Room("cpu", free))
    assert found == kept
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
    found = choose(spec(), shape, room)
    assert found == Choice(True, padding_free=room.kind == "cpu")
    decided = {found.reasons[name] for name in ("plain_head", "gradient_checkpointing")}
    assert all(why in reason for reason in decided)


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("head", ["plain", "chunked"])
def test_what_is_set_is_no_choice(asked, head):
    wanted = spec(asked, head, free=asked)
    found = choose(wanted, SHAPE, Room("cpu", 1))
    assert applied(wanted, found) == wanted
    assert set(found.reasons.values()) == {SET}


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_set_of_sampling_is_no_choice(asked):
    wanted = online(
        generation_copy=asked, shared_prompts=asked, sampler="auto" if asked else "transformers"
    )
    found = choose(wanted, SHAPE, Room("cpu", 1))
    assert (found.generation_copy, found.shared_prompts) == (asked, asked)
    assert applied(wanted, found).train.generation_copy is asked
    assert applied(wanted, found).train.shared_prompts is asked
    assert applied(wanted, found).train.sampler == wanted.train.sampler


def test_what_was_chosen_takes_the_place_of_auto():
    assert applied(spec(), Choice(False)) == spec(False, "chunked", free=False)
    both = Choice(True, plain_head=True, padding_free=True)
    assert applied(spec(), both) == spec(True, "plain", free=True)
    assert applied(spec(algo="reward"), Choice(False)) == spec(False, algo="reward")


@pytest.mark.parametrize("missing", [0, 99])
def test_a_copy_to_sample_from_is_made_where_it_fits_beside_the_cache(missing):
    wanted = online()
    every = choose(wanted, MANY, PLENTY)
    assert all(getattr(every, name) for name in ONLINE)
    found = choose(wanted, MANY, Room("cpu", room_for(every, wanted, MANY) - missing))
    assert found.generation_copy is not bool(missing)
    assert "fit" in found.reasons["generation_copy"]
    assert applied(wanted, found).train.generation_copy == (False if missing else "auto")


@pytest.mark.parametrize(
    ("changed", "room", "kept"),
    [
        ({"precision": "fp32"}, PLENTY, ("own_sampler", "shared_prompts")),
        ({"sampler": "transformers"}, PLENTY, ("shared_prompts",)),
        ({}, Room("gpu", 2**40), ()),
    ],
)
def test_what_cannot_be_had_is_not_chosen(changed, room, kept):
    wanted = spec(True, "chunked", "grpo", **{"precision": "bf16"} | changed)
    found = choose(wanted, SHAPE, room)
    assert tuple(name for name in ONLINE if getattr(found, name)) == kept
    train = applied(wanted, found).train
    assert train.generation_copy is False
    assert train.sampler == ("auto" if "own_sampler" in kept else "transformers")


def test_what_a_trainer_could_not_do_is_corrected_with_a_reason():
    chosen = choose(spec(), SHAPE, PLENTY)
    ways = {"plain_head": True, "padding_free": False}
    found = made(chosen, ways)
    assert (found.plain_head, found.padding_free) == (True, False)
    assert found.reasons == {**chosen.reasons, "padding_free": IMPOSSIBLE}
    assert made(chosen, {}) == chosen


@pytest.mark.parametrize("computed", [True, False])
def test_the_head_of_dpo_is_the_one_that_its_reference_was_computed_with(computed):
    dpo = spec(algo="dpo")
    train = dpo.train.model_copy(update={"precompute_ref_log_probs": computed})
    dpo = dpo.model_copy(update={"train": train})
    found = choose(dpo, SHAPE, Room("cpu", 9))
    assert found.plain_head is found.padding_free is computed
    lighter = {} if computed else {"lm_head": "chunked", "padding_free": False}
    assert applied(dpo, found).train == train.model_copy(update=lighter)


@pytest.mark.parametrize("missing", [0, 99])
def test_the_head_of_dpo_with_an_adapter_and_no_computed_reference_is_plain_where_it_fits(missing):
    made = resolved(Train(precompute_ref_log_probs=False), "dpo", Peft(), 128)
    dpo = train_slice("dpo", made, peft=Peft(), gradient_checkpointing=True)
    free = room_for(Choice(True, plain_head=True, padding_free=True), dpo) - missing
    found = choose(dpo, SHAPE, Room("cpu", free))
    assert found.plain_head is not bool(missing)
    assert applied(dpo, found).train.lm_head == ("chunked" if missing else "plain")


def test_what_is_told_can_be_set_by_the_name_that_it_is_told_with():
    words = [line.split(" (")[0] for line in told(choose(spec(), SHAPE, PLENTY))]
    assert words == ["padding_free: true", "lm_head: plain", "gradient_checkpointing: false"]
    words = [line.split(" (")[0] for line in told(choose(online(), SHAPE, Room("gpu", 9)))]
    assert "sampler: transformers" in words


def test_a_remedy_is_something_that_has_not_been_done_yet():
    plain, adapted = Choice(True, plain_head=True), spec().model_copy(update={"peft": Peft()})
    needed = training_memory(SHAPE, spec(), plain)
    assert remedy(spec(), plain, needed, PLENTY).endswith(
        "lm_head: chunked, or train an adapter (peft)"
    )
    assert remedy(adapted, Choice(True), needed, PLENTY) == (
        "lower train.per_device_batch_size or train.max_length"
    )
    loaded = adapted.model_copy(update={"quantization": "4bit"})
    gpu = Room("gpu", needed.total)
    assert remedy(adapted, Choice(True), needed, gpu).endswith("(model.quantization)")
    assert "quantization" not in remedy(loaded, Choice(True), needed, gpu)


def test_a_remedy_is_something_that_may_be_enough():
    """Shorter rows do not make the weights fit; a batch of one row is the smallest."""
    needed = training_memory(SHAPE, spec(), Choice(True))
    tight = Room("cpu", needed.held)
    assert remedy(spec(), Choice(True, plain_head=True), needed, tight) == "train an adapter (peft)"
    adapted = spec().model_copy(update={"peft": Peft()})
    assert remedy(adapted, Choice(True), needed, tight) == "take a smaller model"
    smallest = spec().train.model_copy(update={"per_device_batch_size": 1})
    one = spec().model_copy(update={"train": smallest})
    assert remedy(one, Choice(True), needed, PLENTY).startswith("lower train.max_length, or")
    assert "train.max_completion_length" in remedy(online(), Choice(True), needed, PLENTY)


def test_only_what_the_algorithm_has_is_decided():
    assert list(choose(spec(algo="reward"), SHAPE, PLENTY).reasons) == ["gradient_checkpointing"]
    assert not {*ONLINE} & choose(spec(), SHAPE, PLENTY).reasons.keys()


def test_a_choice_is_remembered(tmp_path):
    chosen = choose(spec(), SHAPE, PLENTY)
    remember(chosen, tmp_path, "key")
    found, key = recall(tmp_path)
    assert (found, found.reasons, key) == (chosen, chosen.reasons, "key")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:20],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace("true", "false", 1),
        lambda text: text.replace("plain_head", "plain_hood"),
        lambda text: text.replace('"key": "key"', '"key": "kez"'),
        lambda text: text[:-9] + "00000000}",
    ],
)
def test_a_damaged_choice_is_named_and_not_taken(tmp_path, damage):
    with pytest.raises(ResourceError, match=FILE):
        recall(tmp_path)
    remember(choose(spec(), SHAPE, PLENTY), tmp_path, "key")
    text = (tmp_path / FILE).read_text()
    assert damage(text) != text
    (tmp_path / FILE).write_text(damage(text))
    with pytest.raises(ResourceError, match=FILE):
        recall(tmp_path)


@pytest.mark.parametrize("missing", [0, 99])
def test_the_heap_is_kept_where_half_again_of_the_stage_fits(missing):
    wanted = spec(False, "plain", free=True)
    needed = training_memory(SHAPE, wanted, Choice(False, plain_head=True, kept_heap=True)).total
    free = int(AGAIN * needed / MARGIN) + 9 - missing
    found = choose(wanted, SHAPE, Room("cpu", free, keeps_heap=True))
    assert found.kept_heap is not bool(missing)
    assert found.reasons["kept_heap"].startswith("1.5 times ")
    assert applied(wanted, found) == wanted


def test_dpo_does_not_keep_its_heap():
    assert choose(spec(algo="dpo"), SHAPE, Room("cpu", 2**40, keeps_heap=True)).kept_heap is False


def test_nothing_is_said_of_a_heap_that_cannot_be_kept():
    assert "kept_heap" not in choose(spec(), SHAPE, PLENTY).reasons
