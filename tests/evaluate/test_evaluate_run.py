"""An evaluation from files to files."""

import json
import math
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny import build_tiny_model

from aligntune.config.slices import EvaluateSlice
from aligntune.errors import ConfigError, DataError, Diverged, Interrupted, ResourceError
from aligntune.evaluate import likelihood
from aligntune.evaluate.cache import Cache
from aligntune.evaluate.run import UNSCORED_ANSWERS, Models, evaluate
from aligntune.models.load import load_policy

SPEC = EvaluateSlice(
    split="heldout",
    max_samples=100,
    rewards=(),
    metrics=(),
    max_new_tokens=4,
    batch_size=4,
    max_length=128,
    confidence=0.95,
    resamples=200,
    precision="fp32",
    trust_remote_code=False,
    seed=1,
)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


SUMS = [
    {"messages": [user(f"What is {n} plus 30?"), assistant(f"{n + 30}")], "answer": str(n + 30)}
    for n in range(10)
]
TALK = [{"messages": row["messages"]} for row in SUMS]
PAIRS = [
    {"prompt": [user(f"{n}?")], "chosen": [assistant("yes")], "rejected": [assistant("no " * n)]}
    for n in range(1, 9)
]


def quiet(done, total, shown):
    pass


@pytest.fixture
def measure(tiny_model, tmp_path):
    """Evaluates on `rows`; returns what came back and the directory that was written."""
    count = 0

    def measure(
        rows, model=tiny_model, baselines=None, progress=quiet, reference=None, cache=None,
        **settings,
    ):  # fmt: skip
        nonlocal count
        count += 1
        data, out = tmp_path / f"data-{count}", tmp_path / f"out-{count}"
        data.mkdir()
        out.mkdir()
        pq.write_table(pa.Table.from_pylist(rows), data / "heldout.parquet")
        spec = SPEC.model_copy(update=settings)
        models = Models(model, reference, baselines, cache)
        return evaluate(spec, models, data, out, progress), out

    return measure


@pytest.fixture
def change(tiny_model, tmp_path):
    """A copy of the tiny model with its output weights changed."""

    def change(name, edit):
        folder = shutil.copytree(tiny_model, tmp_path / name)
        model = load_policy(tiny_model, trust_remote_code=False)
        with torch.no_grad():
            edit(model)
        model.save_pretrained(folder)
        return folder

    return change


@pytest.fixture
def undecided(change):
    """Gives every token the same probability."""
    return change("undecided", lambda model: model.model.norm.weight.zero_())


@pytest.fixture
def overconfident(change):
    """Is sure, and nearly always wrong."""
    return change("overconfident", lambda model: model.model.norm.weight.mul_(300))


def test_every_metric_that_the_rows_allow_is_computed_by_default(measure):
    metrics, _ = measure(SUMS)
    assert {"exact_match", "nll", "nll/low", "nll/high", "nll/count"} <= set(metrics.metrics)
    assert metrics.metrics["nll/count"] == metrics.metrics["exact_match/count"] == 10
    assert metrics.metrics["tokens_per_second"] > 0
    assert 1 <= metrics.metrics["answer_tokens"] <= 4
    assert 0 <= metrics.metrics["finished_rate"] <= 1
    assert "exact_match" not in measure(TALK)[0].metrics
    pairs = measure(PAIRS)[0].facts["unscored"]
    assert {"preference_accuracy", "preference_margin", "answer_tokens"} <= set(pairs)
    assert not {"nll", "exact_match", "kl_to_base"} & set(pairs)


def test_only_the_named_metrics_are_computed(measure):
    found, out = measure(SUMS, metrics=("nll",))
    assert "exact_match" not in found.metrics
    assert set(json.loads((out / "evaluation.json").read_text())["metrics"]) == {"nll"}


def test_predictions_hold_each_rows_prompt_answer_and_scores(measure):
    found, out = measure(SUMS)
    table = pq.read_table(out / "predictions.parquet").to_pylist()
    assert [line["row"] for line in table] == list(range(10))
    assert [line["prompt"] for line in table] == [row["messages"][:1] for row in SUMS]
    assert [line["reference"] for line in table] == [row["answer"] for row in SUMS]
    assert all(isinstance(line["completion"], str) for line in table)
    assert all(line["finished"] or line["tokens"] == 4 for line in table)
    mean = sum(line["nll"] for line in table) / 10
    assert found.metrics["nll"] == pytest.approx(mean)
    assert found.metrics["nll/low"] < mean < found.metrics["nll/high"]


def test_the_reference_is_the_datas_own_answer_where_there_is_no_other(measure):
    for rows, expected in ((TALK, SUMS[1]["answer"]), (PAIRS, "yes")):
        _, out = measure(rows)
        assert pq.read_table(out / "predictions.parquet")["reference"][1].as_py() == expected


def test_a_model_without_preferences_scores_log_v(measure, undecided):
    found, _ = measure(TALK, undecided)
    vocabulary = load_policy(undecided, trust_remote_code=False).config.vocab_size
    assert found.metrics["nll"] == pytest.approx(math.log(vocabulary))


def test_only_the_first_max_samples_rows_are_measured(measure):
    found, out = measure(SUMS, max_samples=3)
    assert found.facts["rows"] == 3
    assert pq.read_table(out / "predictions.parquet").num_rows == 3


def test_a_model_does_not_differ_from_itself(measure):
    _, base = measure(SUMS)
    found, out = measure(SUMS, baselines={"base": base})
    assert found.metrics["nll/vs_base"] == 0
    assert {"exact_match", "nll", "answer_tokens"} <= set(found.facts["verdicts"]["base"])
    assert set(found.facts["verdicts"]["base"].values()) == {"inconclusive"}
    assert (base / "predictions.parquet").read_bytes() == (out / "predictions.parquet").read_bytes()


def test_a_lower_nll_is_better_and_a_higher_one_worse(measure, undecided, overconfident):
    even, sure = measure(TALK, undecided)[1], measure(TALK, overconfident)[1]
    better, out = measure(TALK, undecided, {"base": sure, "sft": even}, metrics=("nll",))
    assert better.facts["verdicts"] == {"base": {"nll": "better"}, "sft": {"nll": "inconclusive"}}
    assert better.metrics["nll/vs_base"] < 0
    assert better.metrics["nll/vs_base_low"] <= better.metrics["nll/vs_base"]
    assert better.metrics["nll/vs_base_high"] < 0
    worse, _ = measure(TALK, overconfident, {"base": even}, metrics=("nll",))
    assert worse.facts["verdicts"] == {"base": {"nll": "worse"}}
    against = json.loads((out / "evaluation.json").read_text())["metrics"]["nll"]["against"]
    assert (against["base"]["wins"], against["base"]["losses"]) == (10, 0)


def test_the_same_evaluation_writes_the_same_bytes(measure):
    (_, one), (_, other) = measure(SUMS), measure(SUMS)
    for name in ("evaluation.json", "predictions.parquet"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_a_baseline_on_other_rows_is_refused(measure):
    _, base = measure(SUMS)
    with pytest.raises(DataError, match=r"baseline 'base' .* cannot be compared: rows_sha256"):
        measure([*SUMS[1:], SUMS[0]], baselines={"base": base})
    with pytest.raises(DataError, match="max_new_tokens 4 there, 5 here"):
        measure(SUMS, baselines={"base": base}, max_new_tokens=5)


def test_a_baseline_of_other_tokens_is_not_compared_by_what_counts_in_them(
    measure, tmp_path, caplog
):
    """A model of fewer, longer tokens has more nats in each."""
    other = build_tiny_model(tmp_path / "other", vocab_size=300)
    base = measure(SUMS)[1]
    document = json.loads((measure(SUMS, model=other, baselines={"base": base})[1]
                           / "evaluation.json").read_text())  # fmt: skip
    compared = {name for name, found in document["metrics"].items() if found["against"]}
    assert {"exact_match", "finished_rate"} <= compared
    assert not compared & {"nll", "perplexity", "answer_tokens"}
    assert "not compared with base, which has other tokens: answer_tokens, nll" in caplog.text


def test_a_baseline_that_is_no_evaluation_is_refused(measure, tmp_path):
    with pytest.raises(DataError, match=r"baseline 'base': .* holds no readable evaluation"):
        measure(SUMS, baselines={"base": tmp_path})


def test_a_baseline_that_did_not_measure_a_metric_is_not_compared_on_it(measure):
    _, base = measure(SUMS, metrics=("nll",))
    found, _ = measure(SUMS, baselines={"base": base})
    assert set(found.facts["verdicts"]["base"]) == {"nll"}
    assert "exact_match/vs_base" not in found.metrics


def test_a_metric_that_no_row_allows_is_refused_with_the_columns_that_are_there(measure):
    with pytest.raises(DataError, match=r"'exact_match' needs rows with answer.*columns: messages"):
        measure(TALK, metrics=("exact_match",))
    with pytest.raises(DataError, match=r"columns: prompt\) allow none of exact_match, nll"):
        measure([{"prompt": [user("hi")]}])


def test_a_metric_that_does_not_exist_is_refused(measure):
    with pytest.raises(ConfigError, match="did you mean 'exact_match'"):
        measure(TALK, metrics=("exactmatch",))


def test_rows_that_are_too_long_are_left_out_and_counted(measure):
    long = {"messages": [user("hi"), assistant("x " * 300)], "answer": "7"}
    found, out = measure([*SUMS, long])
    assert {name: found.facts["unscored"][name] for name in ("exact_match", "nll")} == {
        "exact_match": 0,
        "nll": 1,
    }
    assert found.metrics["nll/count"] == 10
    assert pq.read_table(out / "predictions.parquet")["nll"][10].as_py() is None
    with pytest.raises(DataError, match="none of the 1 rows fits"):
        measure([long], metrics=("nll",))


def test_each_row_is_measured_by_what_it_allows(measure):
    found, _ = measure([*SUMS[:4], *TALK[:2]])
    assert found.metrics["exact_match/count"] == 4
    assert found.metrics["nll/count"] == 4, "two of the six rows ask what others ask"
    assert not any(found.facts["unscored"][name] for name in ("exact_match", "nll"))


def test_a_few_answers_are_written_even_where_no_metric_scores_them(measure):
    found, out = measure(TALK * 4, max_new_tokens=1, batch_size=40)
    written = pq.read_table(out / "predictions.parquet")["completion"].to_pylist()
    assert [text is not None for text in written] == [True] * UNSCORED_ANSWERS + [False] * 8
    assert found.facts["unscored"]["answer_tokens"] == 0, "it is for the answers that are there"
    _, out = measure(TALK * 4, max_new_tokens=1, batch_size=40, metrics=("answer_tokens",))
    assert None not in pq.read_table(out / "predictions.parquet")["completion"].to_pylist()


def test_several_rows_of_one_prompt_are_one_unit(measure):
    once, _ = measure(SUMS, metrics=("nll", "exact_match"))
    again, _ = measure(SUMS * 4, metrics=("nll", "exact_match"))
    for name in ("nll", "nll/low", "nll/high", "nll/se", "nll/count", "exact_match/high"):
        assert again.metrics[name] == pytest.approx(once.metrics[name]), name
    assert again.facts["rows"] == 40


def test_perplexity_is_of_the_mean_nll_and_so_are_its_ends(measure, overconfident):
    for model in ({}, {"model": overconfident}):
        found, out = measure(TALK, **model)
        for end in ("", "/low", "/high"):
            expected = math.exp(found.metrics[f"nll{end}"])
            assert found.metrics[f"perplexity{end}"] == pytest.approx(expected)
        assert "perplexity" not in pq.read_table(out / "predictions.parquet").column_names


def test_the_distance_to_the_base_needs_a_base_with_the_same_tokens(
    measure, tiny_model, undecided, tmp_path
):
    assert "kl_to_base" not in measure(SUMS)[0].metrics
    found, _ = measure(SUMS, undecided, reference=tiny_model)
    assert found.metrics["kl_to_base"] > 0
    assert found.metrics["kl_to_base/count"] == 10
    same, _ = measure(SUMS, reference=tiny_model)
    assert same.metrics["kl_to_base"] == pytest.approx(0, abs=1e-9)
    other = build_tiny_model(tmp_path / "other", vocab_size=300)
    assert "kl_to_base" not in measure(SUMS, reference=other)[0].metrics


def test_a_model_answers_once_whatever_is_measured_then(measure, undecided, tmp_path, caplog):
    cache = Cache(tmp_path / "answers", "one")
    (first, one), seen = measure(SUMS, cache=cache), []
    second, other = measure(
        SUMS, cache=cache, metrics=("exact_match",), confidence=0.9,
        progress=lambda *step: seen.append(step[0]),
    )  # fmt: skip
    assert len(list(cache.folder.iterdir())) == 1
    assert seen[0] == 10, "no batch of ten was generated"
    assert second.metrics["tokens_per_second"] == first.metrics["tokens_per_second"]
    assert second.metrics["exact_match"] == first.metrics["exact_match"]
    columns = ["completion", "finished", "tokens"]
    read = [pq.read_table(out / "predictions.parquet", columns=columns) for out in (one, other)]
    assert read[0] == read[1]


@pytest.mark.parametrize(
    ("settings", "model"), [({"max_new_tokens": 5}, "one"), ({"batch_size": 3}, "one"), ({}, "two")]
)
def test_other_settings_and_other_models_have_answers_of_their_own(
    measure, tmp_path, settings, model
):
    measure(SUMS, cache=Cache(tmp_path / "answers", "one"))
    measure(SUMS, cache=Cache(tmp_path / "answers", model), **settings)
    assert len(list((tmp_path / "answers").iterdir())) == 2


@pytest.fixture
def passes(monkeypatch):
    """Counts the batches that go through a model to be scored."""
    seen, score = [], likelihood._score
    monkeypatch.setattr(likelihood, "_score", lambda *given: seen.append(1) or score(*given))
    return seen


@pytest.mark.parametrize("rows", [TALK, PAIRS, SUMS], ids=["nll", "pairs", "kl"])
def test_what_a_model_scored_it_scores_once_whatever_is_made_of_it(
    measure, tiny_model, tmp_path, passes, rows
):
    cache = Cache(tmp_path / "answers", "one", "base")
    first, one = measure(rows, cache=cache, reference=tiny_model)
    scored = len(passes)
    second, other = measure(rows, cache=cache, reference=tiny_model, confidence=0.9, resamples=300)
    assert len(passes) == scored > 0
    assert first.metrics.keys() == second.metrics.keys()
    for name, value in first.metrics.items():
        if not name.endswith(("/low", "/high")):
            assert second.metrics[name] == value
    tables = [pq.read_table(out / "predictions.parquet") for out in (one, other)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("changed", "rows", "settings"),
    [
        ({"model": "two"}, PAIRS, {}),
        ({"reference": "other"}, PAIRS, {}),
        ({"measures": 8}, PAIRS, {}),
        ({}, PAIRS[1:], {}),
        ({}, PAIRS, {"max_length": 64}),
        ({}, PAIRS, {"batch_size": 3}),
    ],
)
def test_other_models_rows_and_settings_have_scores_of_their_own(
    measure, tmp_path, passes, changed, rows, settings
):
    known = {"model": "one", "reference": "base", "measures": 7}
    chosen = {"metrics": ("preference_accuracy",)}
    measure(PAIRS, cache=Cache(tmp_path / "answers", **known), **chosen)
    scored = len(passes)
    measure(rows, cache=Cache(tmp_path / "answers", **known | changed), **chosen | settings)
    assert len(passes) > scored
    files = list((tmp_path / "scores").iterdir())
    assert len(files) == 2


def test_damaged_scores_are_made_again(measure, tmp_path, passes):
    cache = Cache(tmp_path / "answers", "one")
    first, _ = measure(PAIRS, cache=cache)
    scored = len(passes)
    (file,) = (tmp_path / "scores").iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    second, _ = measure(PAIRS, cache=cache)
    assert len(passes) == 2 * scored
    assert second.metrics["preference_margin"] == first.metrics["preference_margin"]


def test_damaged_answers_are_made_again(measure, tmp_path):
    cache = Cache(tmp_path / "answers", "one")
    first, _ = measure(SUMS, cache=cache)
    (file,) = cache.folder.iterdir()
    good = pq.read_table(file)
    file.write_bytes(file.read_bytes()[:-9])
    second, _ = measure(SUMS, cache=cache)
    assert second.metrics["exact_match"] == first.metrics["exact_match"]
    assert pq.read_table(file) == good


def test_a_missing_or_empty_split_is_refused(measure, tiny_model, tmp_path):
    with pytest.raises(DataError, match=r"there is no train\.parquet"):
        measure(SUMS, split="train")
    pq.write_table(pa.table({"messages": pa.array([], pa.string())}), tmp_path / "heldout.parquet")
    with pytest.raises(DataError, match="no rows"):
        evaluate(SPEC, Models(tiny_model), tmp_path, tmp_path, quiet)


def test_a_model_with_nan_weights_is_refused(measure, change):
    broken = change("broken", lambda model: model.model.norm.weight.mul_(float("nan")))
    with pytest.raises(Diverged, match="not finite"):
        measure(TALK, broken)


def test_progress_rises_to_the_total_and_shows_what_is_known(measure):
    seen = []
    measure(SUMS, progress=lambda *step: seen.append((step[0], step[1], dict(step[2]))))
    done = [step for step, _, _ in seen]
    assert done == sorted(done)
    assert {total for _, total, _ in seen} == {20}
    assert done[-1] == 20
    assert {"exact_match", "nll", "tokens_per_second"} <= set(seen[-1][2])


def test_progress_may_stop_an_evaluation(measure):
    def stop(done, total, shown):
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        measure(SUMS, progress=stop)


def test_a_full_memory_names_the_setting_to_lower(measure):
    def fill(done, total, shown):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ResourceError, match=r"4 rows at once .* lower evaluation\.batch_size"):
        measure(SUMS, progress=fill)
