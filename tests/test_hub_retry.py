"""What a hub that is busy, silent, absent or unwilling leads to."""

import errno
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from loopback_hub import TOKEN

from aligntune import hub, hub_config, hub_retry
from aligntune.cli import app
from aligntune.errors import ConfigError, DataError, ResourceError, ServiceError

MODEL = "me/tiny"
FILES = {"model.safetensors": b"weights", "config.json": b"{}"}


@pytest.fixture
def model(hub_server):
    hub_server.commit("model", MODEL, FILES)
    return hub_server


def test_the_budget_ends_the_retries_with_the_service_exit_code(hub_server, monkeypatch):
    monkeypatch.setenv("ALIGNTUNE_HUB_BUDGET", "2")
    hub_server.fail(503, times=1000)
    start = time.monotonic()
    with pytest.raises(ServiceError, match=r"within 2 s \(HTTP 503\); run again later") as caught:
        hub.commit_of(MODEL, "model", None)
    assert caught.value.exit_code == 69
    assert time.monotonic() - start < 30
    assert len(hub_server.requests) > 1


def test_a_hub_that_accepts_and_then_says_nothing_counts_as_cut(model, monkeypatch):
    monkeypatch.setenv("ALIGNTUNE_HUB_BUDGET", "0.4")
    model.fail("stall", times=1000)
    with pytest.raises(ServiceError, match="Timeout"):
        hub.commit_of(MODEL, "model", None)


def test_the_wait_is_the_one_the_server_asks_for_and_is_logged(model, caplog):
    model.fail(429, path="/api/models", headers={"Retry-After": "1"})
    start = time.monotonic()
    hub.commit_of(MODEL, "model", None)
    assert time.monotonic() - start >= 1
    (record,) = [r for r in caplog.records if r.name.startswith("aligntune")]
    assert "HTTP 429; trying again in 1." in record.getMessage()
    assert MODEL in record.getMessage()


def test_a_rate_limit_window_is_waited_for(model):
    model.fail(429, path="/api/models", headers={"RateLimit": '"api";r=0;t=1'})
    start = time.monotonic()
    hub.commit_of(MODEL, "model", None)
    assert time.monotonic() - start >= 1


def test_a_long_budget_lengthens_no_question_that_must_be_short(model, monkeypatch):
    monkeypatch.setenv("ALIGNTUNE_HUB_BUDGET", "3600")
    monkeypatch.setattr(hub_config, "SECONDS", 0.5)
    model.fail(503, times=1000)
    start = time.monotonic()
    assert hub_config.config_of(MODEL, "0" * 40) is None
    assert time.monotonic() - start < 30


def test_a_wait_beyond_the_budget_is_not_begun(model):
    model.fail(429, path="/api/models", headers={"Retry-After": "3600"})
    start = time.monotonic()
    with pytest.raises(ServiceError, match="HTTP 429"):
        hub.commit_of(MODEL, "model", None)
    assert time.monotonic() - start < 30


def test_nobody_listening_is_a_service_error(hub_server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ServiceError, match="ConnectError"):
        hub.commit_of(MODEL, "model", None)


def test_an_endpoint_without_a_scheme_is_a_config_error(hub_server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "localhost:8000")
    with pytest.raises(ConfigError, match="HF_ENDPOINT must start with"):
        hub.commit_of(MODEL, "model", None)


@pytest.mark.parametrize("text", ["soon", "-1", "0", "nan", "inf"])
def test_a_budget_that_is_no_time_is_a_config_error(hub_server, monkeypatch, text):
    monkeypatch.setenv("ALIGNTUNE_HUB_BUDGET", text)
    with pytest.raises(ConfigError, match="ALIGNTUNE_HUB_BUDGET"):
        hub.commit_of(MODEL, "model", None)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_access_names_the_variable_but_never_the_token(model, status):
    model.fail(status, message=f"your token {TOKEN} may not")
    with pytest.raises(ConfigError, match="set HF_TOKEN to a token that may use it") as caught:
        hub.commit_of(MODEL, "model", None)
    assert TOKEN not in str(caught.value)
    assert caught.value.exit_code == 78
    assert len(model.requests) == 1


def test_an_answer_that_is_no_json_is_asked_for_again_and_then_a_service_error(model):
    model.fail("tamper", path="/api/models")
    assert hub.commit_of(MODEL, "model", None) == model.commits(MODEL)[-1]
    model.fail("tamper", path="/api/models", times=1000)
    with pytest.raises(ServiceError, match="within 2 s"):
        hub.commit_of(MODEL, "model", None)


def test_a_hub_that_leads_in_circles_is_a_service_error(model, tmp_path):
    model.fail("redirect", method="GET", path="/api/models", times=1000)
    with pytest.raises(ServiceError, match="TooManyRedirects"):
        hub.commit_of(MODEL, "model", None)
    model.heal()
    model.fail("redirect", path="config.json", times=1000)
    with pytest.raises(ServiceError, match="model 'me/tiny'"):
        hub.download_model(MODEL, None, tmp_path / "model")


def test_a_file_that_may_not_be_read_says_so_and_not_that_it_is_missing(model, tmp_path):
    model.fail(403, method="HEAD", path="config.json")
    with pytest.raises(ConfigError, match="set HF_TOKEN to a token that may use it"):
        hub.download_model(MODEL, None, tmp_path / "model")


def test_a_gated_and_a_private_model_say_what_to_do(model, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    model.repos["model", MODEL].gated = True
    with pytest.raises(ConfigError, match="is gated; accept its terms"):
        hub.commit_of(MODEL, "model", None)
    model.repos["model", MODEL].private = True
    with pytest.raises(ConfigError, match="set HF_TOKEN if it is private"):
        hub.commit_of(MODEL, "model", None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert hub.commit_of(MODEL, "model", None) == model.commits(MODEL)[-1]


@pytest.mark.parametrize("status", [400, 404, 410, 418, 451])
def test_an_answer_that_no_waiting_changes_ends_the_download_at_once(model, tmp_path, status):
    model.fail(status, times=1000)
    with pytest.raises(ConfigError, match=f"is refused with HTTP {status}"):
        hub.download_model(MODEL, None, tmp_path / "model")
    assert len(model.requests) == 1


def test_errors_that_are_not_the_hubs_pass_unchanged(hub_server):
    def broken():
        raise RuntimeError("ours")

    def missing():
        Path("/no/such/file").read_text()

    def refused():
        raise DataError("row 3")

    with pytest.raises(RuntimeError, match="ours"):
        hub.retrying(broken, "x")
    with pytest.raises(FileNotFoundError):
        hub.retrying(missing, "x")
    with pytest.raises(DataError, match="row 3"):
        hub.retrying(refused, "x")


def test_a_full_disk_is_not_retried(hub_server):
    attempts = []

    def full():
        attempts.append(1)
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/blob")

    with pytest.raises(ResourceError, match="No space left on device at /cache/blob"):
        hub.retrying(full, "model 'me/tiny'")
    assert attempts == [1]


def test_plan_does_not_wait_for_a_hub_as_long_as_a_run_does(hub_server, monkeypatch, tmp_path):
    monkeypatch.setattr("aligntune.cli.PLAN_SECONDS", 0.4)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("ALIGNTUNE_HUB_BUDGET")
    config = tmp_path / "run.yaml"
    config.write_text('algo: dpo\nmodel: {name_or_path: o/m}\ndatasets: [{name: "arithmetic:"}]\n')
    error = CliRunner().invoke(app, ["plan", "-c", str(config)]).exception
    assert isinstance(error, ServiceError)
    assert "within 0.4 s" in str(error)
    assert "HF_HUB_OFFLINE=1" in str(error)
    assert hub_retry.budget_of() == 600
