"""The configs of a sweep's runs, and what is said of all that are wrong."""

import pytest

from aligntune.errors import ConfigError
from aligntune.sweep.choose import Choice, chosen
from aligntune.sweep.going import Going
from aligntune.sweep.runs import plans, sharing

CONFIG = """
algo: dpo
model: {{name_or_path: {model}}}
datasets: [{{name: "arithmetic:"}}]
sft: {{datasets: [{{name: "arithmetic:"}}]}}
logging: {{output_dir: {out}, run_name: first, push_to_hub: true, hub_model_id: me/it}}
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.format(model=tmp_path / "model", out=tmp_path / "out"))
    return path


def test_runs_end_with_their_evaluation_and_are_named_for_their_sweep(config):
    made = chosen([config], ["train.beta=0.1,0.2"], Choice())
    assert (made.name, [run.name for run in made.runs]) == (
        "first", ["first-beta-0.1", "first-beta-0.2"],
    )  # fmt: skip
    for run, plan in zip(made.runs, plans(made), strict=True):
        assert plan.stages[-1].stage.label == "evaluate-dpo"
        assert run.config.logging.sweep == "first"
        assert not run.config.registry.enabled
        assert plan.paths.run.name == run.name


def test_what_a_sweep_turns_off_is_no_mistake_of_the_config(config):
    """Its best run is registered, under this name."""
    named = ["train.beta=0.1,0.2", "registry.name=mine"]
    assert chosen([config], named, Choice()).notes == ()
    off = ["train.beta=0.1,0.2", "registry.name=mine", "registry.enabled=false"]
    assert "registers nothing" in chosen([config], off, Choice()).notes[0]


def test_the_best_is_registered_and_promotes_nothing_by_itself(config):
    made = chosen([config], ["train.beta=0.1,0.2"], Choice())
    assert "registry.promote=manual" in made.runs[0].registered
    assert "registry.enabled=false" not in made.runs[0].registered
    never = chosen([config], ["train.beta=0.1,0.2", "registry.promote=never"], Choice())
    assert "registry.promote=manual" not in never.runs[0].registered


def test_a_sweep_over_beta_trains_sft_and_asks_the_reference_once(config):
    made = chosen([config], ["train.beta=0.1,0.2,0.3"], Choice())
    first, *others = sharing(plans(made))
    assert {"sft", "dpo", "evaluate-sft"} <= set(first["run"])
    for other in others:
        assert other["run"] == ["dpo", "evaluate-dpo"]
        assert {"sft", "reference"} <= set(other["shared"])


def test_all_problems_are_told_at_once_with_the_combinations_that_have_them(config):
    with pytest.raises(ConfigError) as caught:
        chosen([config], ["train.beta=0.1,-1,x", "train.fooo=1"], Choice())
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("--set train.fooo=1: train.fooo: unknown key")
    assert lines[1].startswith("with train.beta=-1: --set train.beta=-1: train.beta: got -1")
    assert lines[2].startswith("with train.beta=x: --set train.beta=x: train.beta: got 'x'")


def test_the_metric_is_one_that_can_be_measured(config):
    with pytest.raises(ConfigError, match="did you mean 'exact_match'"):
        chosen([config], ["train.beta=0.1,0.2"], Choice(metric="exact_mach"))
    with pytest.raises(ConfigError, match=r"not among `evaluation\.metrics`"):
        chosen([config], ["train.beta=0.1,0.2", "evaluation.metrics=[nll]"],
               Choice(metric="exact_match"))  # fmt: skip
    gated = ["train.beta=0.1,0.2", "registry.gates=[{metric: nll}]"]
    assert chosen([config], gated, Choice()).metric == "nll"


def test_the_metric_means_the_same_in_every_run(config):
    own = ["rewards=[{reward_type: length}, {reward_type: repetition}]"]
    varied = [*own, "rewards.0.weight=1,2,5"]
    with pytest.raises(
        ConfigError, match=r"--metric reward: .* another rewards\.0\.weight in each"
    ):
        plans(chosen([config], varied, Choice(metric="reward")))
    assert len(plans(chosen([config], varied, Choice(metric="rewards/length")))) == 3
    assert len(plans(chosen([config], varied, Choice(metric="exact_match")))) == 3


def test_optuna_needs_a_metric_with_a_known_direction_and_to_be_installed(config, monkeypatch):
    varied = ["train.beta=0.1,0.2"]
    with pytest.raises(ConfigError, match="give --metric"):
        chosen([config], varied, Choice(trials=3))
    with pytest.raises(ConfigError, match="use --random"):
        chosen([config], varied, Choice(trials=3, metric="lm_eval/piqa/acc"))
    with pytest.raises(ConfigError, match="give one of them"):
        chosen([config], varied, Choice(drawn=2, trials=3))
    monkeypatch.setattr("aligntune.sweep.study.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'aligntune-pipeline\[optuna\]'"):
        chosen([config], varied, Choice(trials=3, metric="nll"))


def test_a_run_whose_data_went_away_meanwhile_stops_no_other(config, tmp_path):
    files = [tmp_path / f"{name}.jsonl" for name in "abc"]
    for file in files:
        file.write_text('{"prompt": "1?", "chosen": "1", "rejected": "2"}\n')
    varied = f"datasets.0.name={','.join(map(str, files))}"
    going = Going(chosen([config], [varied], Choice()))
    runs = going.runs()
    first = next(runs)
    files[1].unlink()
    assert [str(files[2]) in str(run.point) for run in runs] == [True]
    (failed,) = going.outcomes
    assert failed.run is not first
    with pytest.raises(ConfigError, match=r"1 of 1 runs failed .*b\.jsonl"):
        going.check()
