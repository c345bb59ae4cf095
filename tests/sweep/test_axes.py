"""What several values and ranges mean, and what is said where they mean nothing."""

import pytest

from aligntune.errors import ConfigError
from aligntune.sweep.axes import space, split
from aligntune.sweep.points import drawn, grid, name, probes, short


def axes(*overrides):
    return space(overrides).axes


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0.05,0.1, 0.3", ["0.05", "0.1", " 0.3"]),
        ("[q_proj,v_proj],[k_proj]", ["[q_proj,v_proj]", "[k_proj]"]),
        ("{a: 1, b: [2, 3]},{}", ["{a: 1, b: [2, 3]}", "{}"]),
        ('"a, b",c', ['"a, b"', "c"]),
        ("['x,]y', z],w", ["['x,]y', z]", "w"]),
        ("it's,fine", ["it's", "fine"]),
        ("${A:-1,2}", ["${A:-1,2}"]),
        ("one", ["one"]),
    ],
)
def test_a_comma_in_brackets_or_quotes_separates_nothing(text, parts):
    assert list(split(text)) == parts


def test_settings_with_one_value_are_the_same_in_every_run():
    found = space(["train.beta=0.1,0.2", "seed=3", "--lr train.learning_rate=1e-4,1e-5"])
    assert found.fixed == ("seed=3",)
    assert [(axis.key, axis.values) for axis in found.axes] == [
        ("train.beta", ("0.1", "0.2")),
        ("train.learning_rate", ("1e-4", "1e-5")),
    ]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["seed=1"], "nothing varies"),
        (["train.beta=0.1,,0.2"], "a value is missing beside a comma"),
        (["train.beta=0.1,0.2", "train.beta=0.3"], "is given 2 times"),
        (["logging.run_name=a,b"], "called after its settings"),
        (["evaluation.max_samples=5,9"], "the same rows"),
        (["registry.name=a,b"], "the best run alone is registered"),
        (["train.beta=uniform:1"], "write uniform:LOW..HIGH"),
        (["train.beta=uniform:0..inf"], "this is no range"),
        (["train.beta=uniform:2..1"], "the smaller one"),
        (["train.beta=log:0..1"], "above 0"),
        (["train.max_steps=int:1.5..3"], "no whole numbers"),
    ],
)
def test_what_varies_nothing_or_cannot_vary_is_an_error(overrides, says):
    with pytest.raises(ConfigError, match=says):
        space(overrides)


def test_a_grid_is_every_combination_in_order():
    points = grid(axes("a=1,2", "b=x,y"))
    assert points == [
        {"a": "1", "b": "x"}, {"a": "1", "b": "y"}, {"a": "2", "b": "x"}, {"a": "2", "b": "y"},
    ]  # fmt: skip


def test_a_grid_has_no_ranges_and_an_end():
    with pytest.raises(ConfigError, match="--random N or --optuna N"):
        grid(axes("a=log:1e-6..1e-4"))
    many = ",".join(map(str, range(40)))
    with pytest.raises(ConfigError, match="1,600 combinations"):
        grid(axes(f"a={many}", f"b={many}"))


def test_draws_are_seeded_within_their_ends_and_a_longer_sweep_begins_like_a_shorter_one():
    varied = axes("a=log:1e-6..1e-4", "b=int:4..64", "c=uniform:-1..1", "d=x,y")
    points = drawn(varied, 200, seed=1)
    assert points[:5] == drawn(varied, 5, seed=1) != drawn(varied, 5, seed=2)
    rates = [float(point["a"]) for point in points]
    assert min(rates) >= 1e-6
    assert max(rates) <= 1e-4
    below = sum(rate < 1e-5 for rate in rates)
    assert 70 < below < 130, "half of the draws are in the lower decade"
    assert {int(point["b"]) for point in points} <= set(range(4, 65))
    assert {point["d"] for point in points} == {"x", "y"}


def test_draws_differ_and_end_where_there_are_no_more():
    assert len(drawn(axes("a=1,2", "b=int:1..3"), 100, seed=0)) == 6
    narrow = drawn(axes("a=uniform:100..100.01"), 20, seed=0)
    assert len({point["a"] for point in narrow}) == 20


def test_probes_show_every_value_once():
    assert probes(axes("a=1,2,3", "b=int:4..9")) == [
        {"a": "1", "b": "4"}, {"a": "2", "b": "4"}, {"a": "3", "b": "4"}, {"a": "1", "b": "9"},
    ]  # fmt: skip


def test_names_are_readable_safe_short_and_never_the_same():
    assert name("first", {"train.beta": "0.1"}) == "first-beta-0.1"
    assert name("first", {"train.beta": "0.1", "seed": "2"}) == "first-beta-0.1_seed-2"
    assert name("first", {"model.name_or_path": "owner/Tiny"}).startswith(
        "first-name_or_path-Tiny-"
    )
    points = [{"a.b": value} for value in ("a b", "a-b", "[a,b]", "../a", "x" * 80, "x" * 81)]
    names = [name("r" * 60 if i % 2 else "r", point) for i, point in enumerate(points)]
    names += [name("r" * 60, point) for point in points]
    assert all(len(made) <= 64 and "/" not in made and " " not in made for made in names)
    assert len({name("r", point) for point in points}) == len(points)
    assert len({name("r" * 64, point) for point in points}) == len(points)


def test_a_setting_is_called_by_as_much_of_its_path_as_tells_it_apart():
    keys = ["train.learning_rate", "sft.train.learning_rate", "seed"]
    assert [short(key, keys) for key in keys] == [
        "train.learning_rate", "sft.train.learning_rate", "seed",
    ]  # fmt: skip
