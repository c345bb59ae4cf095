"""What a person or a scheduler gets back: one line, an exit code, and nothing lost."""

import json

import pytest

from aligntune.errors import ConfigError, DataError

CONFIG, DATA, BUG, DIVERGED = 78, 65, 70, 79


def run(process):
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def error_lines(output):
    return [line for line in output.splitlines() if line.startswith("ERROR")]


def test_help_names_every_command(aligntune):
    code, output = run(aligntune("--help"))
    assert code == 0
    for verb in ("train", "flow", "plan", "validate"):
        assert verb in output


def test_a_wrong_flag_is_a_usage_error(aligntune):
    assert run(aligntune("train", "--confg", "x.yaml"))[0] == 2


def test_a_valid_config_validates(aligntune, write_config, tmp_path):
    code, output = run(aligntune("validate", "--config", write_config(tmp_path / "out")))
    assert (code, output.count("\n")) == (0, 1)


@pytest.mark.parametrize("verb", ["validate", "plan", "train", "flow"])
def test_a_misspelt_key_is_explained_with_its_place(aligntune, write_config, tmp_path, verb):
    path = write_config(tmp_path / "out")
    path.write_text(path.read_text().replace("learning_rate: 1e-4", "learning_rte: 1e-4"))
    code, output = run(aligntune(verb, "--config", path))
    assert code == CONFIG
    assert f"{path}:8:" in output
    assert "learning_rate" in output
    assert "Traceback" not in output


def test_a_missing_file_is_named(aligntune, tmp_path):
    code, output = run(aligntune("plan", "--config", tmp_path / "none.yaml"))
    assert code == CONFIG
    assert "none.yaml" in output


def test_data_that_is_not_what_it_should_be_ends_with_the_data_code(
    aligntune, write_config, tmp_path
):
    rows = tmp_path / "rows.json"
    config = write_config(tmp_path / "out")
    command = ("train", "--config", config, "--set", f"datasets.0.name={rows}",
               "--set", "datasets.0.params={}")  # fmt: skip
    for text, expected, words in (
        ('[{"colour": "red"}]', DATA, "ERROR 65 data: "),
        (
            '{"colour": "red"}\n',
            CONFIG,
            "ERROR 78 --set datasets.0.name=",
        ),  # known before any stage
    ):
        rows.write_text(text)
        code, output = run(aligntune(*command))
        assert code == expected
        assert "has the columns colour" in output
        assert words in output


def test_finished_stages_survive_a_failing_one(aligntune, write_config, tmp_path):
    output_dir = tmp_path / "out"
    arguments = ("--config", write_config(output_dir), "--set", "train.beta=1e38")
    assert run(aligntune("train", *arguments))[0] == DIVERGED
    assert list((output_dir / "stages").glob("sft-*/manifest.json"))
    status = json.loads((output_dir / "runs" / "tiny" / "status.json").read_text())
    assert (status["state"], status["error"][:6]) == ("failed", "dpo: s")
    page = (output_dir / "runs" / "tiny" / "report.html").read_text()
    assert "Stopped before the end." in page
    assert "train/loss of sft by step" in page
    code, output = run(aligntune("plan", *arguments))
    assert code == 0
    (sft,) = [line for line in output.splitlines() if line.startswith("sft ")]
    assert "reuse" in sft


def test_error_classes_carry_their_codes():
    assert (ConfigError.exit_code, DataError.exit_code) == (CONFIG, DATA)
