"""The commands that run nothing: what they print, and how they end."""

import base64
import errno
import json
import re
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import get_args

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from own_process import printed

from aligntune import doctor, shipped
from aligntune.cli import app
from aligntune.cli_config import FLAGS
from aligntune.config.algo import ALGOS
from aligntune.config.load import load
from aligntune.config.run import RunConfig

CONFIG = """
algo: dpo
model: {name_or_path: owner/model}
datasets: [{name: "arithmetic:"}]
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return path


def test_every_command_explains_itself():
    for name in app.commands:
        done = CliRunner().invoke(app, [name, "--help"])
        assert done.exit_code == 0
        said = app.commands[name].help.replace("\b", "")  # click's mark of lines to keep
        assert "".join(said.split()) in "".join(done.output.split())  # it breaks lines at hyphens


@pytest.mark.parametrize("name", shipped.names())
def test_every_shipped_config_is_valid_and_says_how_to_run_it(run, name):
    code, out, _ = run("validate", "--config", shipped.FOLDER / f"{name}.yaml")
    assert (code, f"{name}.yaml: ok" in out) == (0, True)
    first, second, *_ = shipped.text(name).splitlines()
    assert first == f"# aligntune train --config configs/{name}.yaml"
    assert second.startswith("# ")


def test_there_is_a_config_for_every_algorithm():
    assert set(ALGOS) <= set(shipped.names())
    for algo in ALGOS:
        assert load([shipped.FOLDER / f"{algo}.yaml"]).algo == algo


@pytest.mark.parametrize("algo", [*ALGOS, "DR_GRPO", "pace"])
def test_init_writes_a_config_that_is_valid_with_and_without_its_comments(run, tmp_path, algo):
    file = tmp_path / "new.yaml"
    assert run("init", algo, "-o", file)[0] == 0
    whole = load([file])
    settings = re.sub(r"^( *)#([a-z_]+:|- )", r"\1\2", file.read_text(), flags=re.MULTILINE)
    assert settings != file.read_text()
    for name, field in RunConfig.model_fields.items():
        if (algo, name) != ("sft", "sft"):
            assert f"\n{name}:" in settings, name
        kinds = (field.annotation, *get_args(field.annotation))
        for kind in kinds if name not in ("train", "sft") else ():
            for key in getattr(kind, "model_fields", ()):
                assert re.search(rf"^  +(- )?{key}: ", settings, re.MULTILINE), f"{name}.{key}"
    file.write_text(settings)
    spelled_out = load([file])
    assert spelled_out.model == whole.model
    assert spelled_out.datasets == whole.datasets
    assert spelled_out.evaluation == whole.evaluation
    assert spelled_out.train.learning_rate in (2e-4, 1e-5, 3e-5)


def test_contradictions_and_what_this_machine_lacks_come_together(run, config):
    sets = ["train.beta=0", "datasets.0.name=./lost.jsonl", "model.name_or_path=./lost"]
    code, _, err = run(
        "validate", "-c", config, *(word for each in sets for word in ("--set", each))
    )
    assert code == 78
    assert [line.split(": ")[1] for line in err.splitlines()] == [
        "train.beta",
        "datasets.0.name",
        "model.name_or_path",
    ]


def test_init_replaces_nothing_unasked(run, config):
    code, _, err = run("init", "sft", "-o", config)
    assert (code, "exists already" in err) == (78, True)
    assert config.read_text() == CONFIG
    assert run("init", "sft", "-o", config, "--force")[0] == 0
    assert load([config]).algo == "sft"


@pytest.mark.parametrize("file", ["no/such/folder/run.yaml", "."])
def test_init_where_no_file_can_be_is_a_mistake_and_no_bug(run, tmp_path, file):
    code, _, err = run("init", "sft", "-o", tmp_path / file, "--force")
    assert code == 78
    assert f"{tmp_path / file}: cannot be written; name a file in a directory" in err


def test_init_on_a_full_disk_says_so(run, tmp_path, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("aligntune.artifacts.write_atomic", full)
    code, _, err = run("init", "sft", "-o", tmp_path / "run.yaml")
    assert (code, "cannot be written: no space left on device" in err) == (74, True)


def test_init_knows_what_was_meant(run):
    code, _, err = run("init", "grppo")
    assert (code, "did you mean 'grpo'" in err) == (78, True)


def test_the_schema_accepts_what_loads_and_refuses_what_does_not(run):
    code, out, _ = run("schema")
    schema = json.loads(out)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for name in shipped.names():
        resolved = load([shipped.FOLDER / f"{name}.yaml"]).model_dump(mode="json")
        assert validator.is_valid(resolved), name
    assert not validator.is_valid({"algo": "dpo"})
    assert not validator.is_valid(resolved | {"extra": 1})
    assert code == 0


def test_every_setting_in_the_schema_is_described(run):
    schema = json.loads(run("schema")[1])
    for kind in schema["$defs"].values():
        for name, setting in kind.get("properties", {}).items():
            assert setting.get("description"), f"{kind['title']}.{name}"


def test_configs_lists_and_prints(run):
    assert run("configs", "quickstart")[1] == shipped.text("quickstart")
    listed = run("configs")[1]
    assert all(name in listed for name in shipped.names())
    assert json.loads(run("configs", "--json")[1]).keys() == set(shipped.names())
    assert "sentiment" in run("configs", "--rewards")[1]
    assert json.loads(run("configs", "sft", "--json")[1]) == {"sft": shipped.text("sft")}
    code, _, err = run("configs", "quikstart")
    assert (code, "did you mean 'quickstart'" in err) == (78, True)


def test_doctor_shows_no_secret(run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:hidden@127.0.0.1:9")
    code, out, err = run("doctor")
    assert code == 0
    assert "verysecret" not in out + err
    assert "hidden" not in out + err
    assert re.search(r"^ok +HF_TOKEN +set", out, re.MULTILINE)
    assert re.search(r"^missing +mlflow +http://127.0.0.1:9 does not answer", out, re.MULTILINE)
    found = {row["what"]: row for row in json.loads(run("doctor", "--json")[1])}
    assert found["torch"]["state"] == "ok"


@pytest.fixture
def server():
    """The address of a server that lets in `user` with the password `se/cret`, and nobody else."""
    wanted = "Basic " + base64.b64encode(b"user:se/cret").decode()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.headers.get("Authorization") == wanted else 401)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as served:
        Thread(target=served.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{served.server_port}"
        served.shutdown()


def finding(what):
    every = [*doctor._mlflow("output"), *doctor._prefect()]
    return next((each for each in every if each.what == what), None)


@pytest.mark.parametrize(("user", "says"), [("user:se%2Fcret@", "answers"), ("", "status 401")])
def test_doctor_logs_in_where_the_address_says_how(monkeypatch, server, user, says):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{user}{server}")
    assert finding("mlflow").says.startswith(f"http://{server} answers")
    assert finding("mlflow").says.endswith(says)


ODD = [
    "http://user:hidden@127.0.0.1",
    "http://user:hid/den@127.0.0.1",
    "http://user:12/hidden@127.0.0.1",
    "http://user:hidden@127.0.0.1:port",
    "http://user:hidden@[127.0.0.1",
    "http://user:hid#den@127.0.0.1:9",
    "http://user:hid den@127.0.0.1:9",
]


@pytest.mark.parametrize("address", ODD)
def test_no_odd_address_makes_doctor_fail_or_tell(monkeypatch, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    found = finding("mlflow")
    assert found.state == "missing"
    assert not any(part in found.says for part in ("hid", "den", "user", "12/", ":12"))


DISK = shutil.disk_usage("/")._replace(free=0)


def test_doctor_names_the_experiment_and_the_store_as_runs_will_have_them(monkeypatch):
    assert finding("mlflow").says == "a file below the output directory"
    assert finding("mlflow experiment").says == "aligntune"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://user:hid/den@there/mlflow")
    assert finding("mlflow").says == "a store of kind postgresql, not tried"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    assert finding("mlflow experiment").says == "id 7"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team")
    assert finding("mlflow experiment").says == "team"
    assert finding("MLFLOW_EXPERIMENT_ID").state == "note"


def test_a_registry_that_is_not_where_runs_are_is_refused(run, config, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://127.0.0.1:9/")
    assert finding("mlflow registry") is None
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://user:hidden@127.0.0.1:9")
    assert finding("mlflow registry") is None
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "databricks-uc")
    assert finding("mlflow registry").state == "missing"
    for command in (("validate", "--config", config), ("models",), ("plan", "--config", config)):
        code, _, err = run(*command)
        assert (code, "unset it, or set MLFLOW_TRACKING_URI" in err) == (78, True)
    assert run("validate", "--config", config, "--set", "registry.enabled=false")[0] == 0


def test_doctor_knows_the_server_of_prefects_profile(server, monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with temporary_settings({PREFECT_API_URL: f"http://{server}/api"}):
        assert finding("prefect").says == f"http://{server} answers with status 401"


def test_doctor_says_that_prefects_profiles_cannot_be_read(tmp_path):
    profiles = tmp_path / "profiles.toml"
    profiles.write_text("active = [")
    code = "from aligntune import doctor; print(*doctor._prefect())"
    said = printed(code, env={"PREFECT_PROFILES_PATH": str(profiles), "PREFECT_API_URL": ""})
    assert "state='missing'" in said
    assert "is not valid (TOMLDecodeError)" in said


@pytest.mark.parametrize(
    "command",
    [("models", "--output-dir"), ("sync", "--output-dir"), ("verify",), ("verify", "--key")],
)
def test_a_home_that_is_nowhere_is_no_bug(run, tmp_path, command):
    place = "~nobody_is_called_so/output"
    arguments = (*command, place, tmp_path) if command[-1] == "--key" else (*command, place)
    code, _, err = run(*arguments)
    assert (code in (65, 78), place in err, "bug" in err) == (True, True, False), err


def test_doctor_looks_for_no_home_that_is_nowhere(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    assert [found.state for found in doctor._mlflow("~nobody_is_called_so/output")] == ["ok", "ok"]


def test_doctor_measures_the_disk_that_runs_would_fill(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda at: asked.append(at) or DISK)
    state, _, says = list(doctor._room(str(tmp_path / "not" / "there")))[-1]
    assert (asked, state, "0 GiB free" in says) == ([tmp_path], "note", True)


def test_doctor_speaks_of_the_processor_whatever_else_there_is(monkeypatch, tmp_path):
    monkeypatch.setattr("aligntune.models.precision.GPU", (tmp_path,))
    (cpu,) = [found for found in doctor._devices() if found.what == "cpu"]
    assert re.search(r"\d+ threads, (no )?[A-Z0-9]+, bf16 is (native|emulated)", cpu.says)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(run, shell):
    code, out, _ = run("completion", shell)
    assert (code, "_ALIGNTUNE_COMPLETE" in out) == (0, True)


VALUES = {
    "--model": ("owner/other", lambda c: c.model.name_or_path),
    "--max-samples": (7, lambda c: c.datasets[0].max_samples),
    "--max-steps": (2000, lambda c: c.train.max_steps),
    "--learning-rate": (1e-5, lambda c: c.train.learning_rate),
    "--batch-size": (3, lambda c: c.train.per_device_batch_size),
    "--output-dir": ("./else", lambda c: c.logging.output_dir),
    "--run-name": ("mine", lambda c: c.logging.run_name),
    "--seed": (7, lambda c: c.seed),
}


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("first", [True, False])
def test_a_flag_beats_the_file_and_a_set_wherever_it_stands(run, config, flag, first):
    value, read = VALUES[flag]
    other = ["--set", f"{FLAGS[flag][0].replace('*', '0')}=1"]
    mine = [flag, value]
    arguments = [*mine, *other] if first else [*other, *mine]
    code, out, err = run("validate", "--config", config, "--json", *arguments)
    assert code == 0, err
    assert read(RunConfig.model_validate(json.loads(out)["config"])) == value


def test_max_samples_is_for_every_dataset(run, config):
    config.write_text(CONFIG.replace('{name: "arithmetic:"}', "{name: a/b}, {name: c/d}"))
    out = run("validate", "-c", config, "--json", "--max-samples", 7)[1]
    datasets = json.loads(out)["config"]["datasets"]
    assert [dataset["max_samples"] for dataset in datasets] == [7, 7]


def test_lr_is_short_for_learning_rate(run, config):
    out = run("validate", "-c", config, "--json", "--lr", "3e-6")[1]
    assert json.loads(out)["config"]["train"]["learning_rate"] == 3e-6


def test_mistakes_of_flags_and_files_come_together(run, config):
    config.write_text(CONFIG + "sead: 1\n")
    code, _, err = run(
        "validate", "-c", config, "--max-steps", "ten", "--set", "train.beta=x", "--lr", "7"
    )
    assert code == 78
    assert f"{config}:5:1: sead: unknown key; did you mean 'seed'?" in err
    assert "--max-steps ten: train.max_steps: got 'ten'" in err
    assert "--set train.beta=x: train.beta: got 'x'" in err
    assert "--learning-rate 7: train.learning_rate: got 7" in err


BROKEN = "algo: dpo\nmodel: {name_or_path: o/m}\ndatasets:\n - name: o/d # here\n max_samples: 5\n"


def test_validate_says_what_it_repaired_and_fixes_it_on_request(run, config):
    config.write_text(BROKEN)
    code, _, err = run("validate", "-c", config)
    assert (code, f"{config}:5: 'max_samples' was read as part" in err) == (0, True)
    assert config.read_text() == BROKEN
    code, _, err = run("validate", "-c", config, "--fix")
    assert (code, "indented lines 5" in err) == (0, True)
    assert config.read_text() == BROKEN.replace("\n max", "\n   max")
    assert run("validate", "-c", config)[2] == ""


def test_fix_writes_through_a_link_and_keeps_permissions(run, config, tmp_path):
    config.write_text(BROKEN)
    config.chmod(0o600)
    link = tmp_path / "link.yaml"
    link.symlink_to(config.name)
    assert run("validate", "-c", link, "--fix")[0] == 0
    assert link.is_symlink()
    assert config.read_text() == BROKEN.replace("\n max", "\n   max")
    assert config.stat().st_mode & 0o777 == 0o600


def test_validate_warns_of_what_does_nothing(run, config):
    config.write_text(CONFIG + "train: {cliprange: 0.2}\n")
    code, _, err = run("validate", "-c", config)
    assert code == 0
    assert f"WARNING {config}:5:9: train.cliprange: dpo does not use it; it is for ppo" in err
    (warning,) = json.loads(run("validate", "-c", config, "--json")[1])["warnings"]
    assert warning["key"] == "train.cliprange"


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr("aligntune.needs.has_gpu", lambda: False)


MISSING = [
    ("datasets: [{name: ./no.jsonl}]", "datasets.0.name", "does not exist"),
    ("datasets: [{name: 'arithmetik:'}]", "datasets.0.name", "did you mean 'arithmetic'"),
    ("model: {name_or_path: ./no/model}", "model.name_or_path", "does not exist"),
    ("model: {name_or_path: 'package://nothing_like_it/x'}", "model.name_or_path", "not installed"),
    ("rewards: [{reward_type: lenght}]", "rewards.0.reward_type", "did you mean 'length'"),
    ("rewards: [{reward_type: length, params: {n: 1}}]", "rewards.0.reward_type", "param"),
    ("logging: {loggers: [wandb]}", "logging.loggers", "pip install wandb"),
    (
        "model: {name_or_path: o/m, use_unsloth: true}",
        "model.use_unsloth",
        "pip install unsloth",
    ),
    ("model: {name_or_path: o/m, precision: fp16}", "model.precision", "needs a GPU"),
    ("train: {optimizer: adamw_8bit}", "train.optimizer", "bitsandbytes"),
]


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(("lines", "key", "words"), MISSING)
def test_validate_sees_what_this_machine_lacks(
    run, config, tmp_path, monkeypatch, lines, key, words
):
    monkeypatch.setattr("aligntune.needs.has_gpu", lambda: False)
    extra = tmp_path / "extra.yaml"
    extra.write_text(lines + "\n")
    code, _, err = run("validate", "-c", config, "-c", extra)
    assert code == 78
    assert f"{extra}:1:" in err
    assert f": {key}: " in err
    assert words in err


def test_a_failing_validation_is_json_too(run, config):
    code, out, err = run("validate", "-c", config, "--json", "--seed", "-1")
    assert code == 78
    assert json.loads(out)["ok"] is False
    assert "seed" in json.loads(out)["problems"][0]
    assert err.startswith("ERROR 78 ")


def test_a_plan_is_json_too(run, config, tmp_path, tiny_model):
    arguments = ("--model", tiny_model, "--output-dir", tmp_path / "out")
    code, out, err = run("plan", "-c", config, "--json", *arguments)
    assert code == 0, err
    planned = json.loads(out)
    labels = [stage["label"] for stage in planned["stages"]]
    assert labels == [
        "model", "tokenizer", "data", "reference", "dpo", "evaluate-base", "evaluate-dpo",
        "register", "decide", "promote",
    ]  # fmt: skip
    assert not any(stage["reuse"] for stage in planned["stages"])


@pytest.mark.parametrize("template", ["no-such-file.jinja", "x" * 5_000, "a\x07b"])
def test_a_chat_template_that_is_neither_template_nor_file_is_a_mistake(run, config, template):
    code, _, err = run("validate", "-c", config, "--set", f"model.chat_template={template!r}")
    assert (code, "neither a Jinja template" in err) == (78, True)


def test_a_disk_that_is_full_outside_of_a_stage_is_no_bug(run, config, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "/runs/first/config.yaml")

    monkeypatch.setattr("aligntune.cli.checked", full)
    code, _, err = run("train", "-c", config)
    assert (code, "/runs/first/config.yaml" in err, "bug" in err) == (74, True, False)
