"""Each trial fails where our code has the fault that it is about: somebody drops a check, swaps an
order, forgets to escape, and the trial of that row of README.md says so.

The project is copied once. One fault at a time is put into the copy, and one trial is run there.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from aligntune.processes import end_session

ROOT = Path(__file__).parents[2]
COPIED = ("aligntune", "configs", "flows", "infra", "tests", "pyproject.toml")
FAILED = 1
"""pytest's exit code where tests failed; what cannot be collected is another."""
SMALL = {"FAULT_POINTS": "2", "FAULT_ROWS": "160", "FAULT_CONFIGS": "1000"}
LONGEST = 600
"""Seconds of one trial on a busy machine."""


@dataclass(frozen=True)
class Fault:
    """What a maintainer could do to the code, and the trial that has to notice."""

    row: str
    """Of README.md."""
    file: str
    code: str
    """Stands there once."""
    instead: str
    test: str
    says: str
    """What is in pytest's output when the trial failed for this reason."""
    seed: int = 1
    """With which few points are enough to notice."""

    def __str__(self) -> str:
        return self.row.replace(" ", "-")

    def applied(self, text: str) -> str:
        """The file's text with the fault in it."""
        count = text.count(self.code)
        assert count == 1, (
            f"{self.row}: {self.code!r} is {count} times in {self.file} and has to be there once: "
            "the code changed, and FAULTS has to follow it"
        )
        return text.replace(self.code, self.instead)


HOSTILE = (
    "tests/security/test_hostile_names.py::test_nothing_is_written_outside_the_output_directory"
)
PROMOTION = (
    "tests/test_promotion.py::test_a_promotion_that_is_killed_anywhere_is_completed_by_the_next_run"
)
FAULTS = (
    Fault(
        "G2",
        "aligntune/outbox.py",
        '"FINISHED" if self.made(current) else "KILLED"',
        '"FINISHED"',
        "tests/test_outbox.py::test_a_killed_run_is_closed_as_killed_and_a_living_one_is_left_alone",
        "assert 'FINISHED' == 'KILLED'",
    ),
    Fault(
        "G7",
        "aligntune/evaluate/resample.py",
        "np.random.default_rng(seed)",
        "np.random.default_rng()",
        "tests/faults/test_whole.py::test_the_same_run_twice_makes_the_same_bytes",
        "the second time they are others",
    ),
    Fault(
        "G9",
        "aligntune/train/guard.py",
        "            self._refuse(logs, state.global_step)\n",
        "            pass\n",
        "tests/faults/test_rewards.py"
        "::test_a_reward_that_teaches_nothing_is_no_success[constant-stop]",
        "Ended(code=0,",
    ),
    Fault(
        "G10",
        "aligntune/deliver.py",
        """\
            self._tolerant(record, "metrics", partial(self._send_rows, str(sent.run_id), lines))
            offset += sum(len(line) for line in lines)
            sent = self._note(record, offsets=sent.offsets | {journal: offset})
""",
        """\
            offset += sum(len(line) for line in lines)
            sent = self._note(record, offsets=sent.offsets | {journal: offset})
            self._tolerant(record, "metrics", partial(self._send_rows, str(sent.run_id), lines))
""",
        "tests/faults/test_outages.py"
        "::test_mlflow_away_costs_no_point_no_model_and_no_step_waits[refuse-3.0]",
        "assert not Counter({('train/",
    ),
    Fault(
        "G11",
        "aligntune/outbox.py",
        "if arrived and record.status",
        "if record.status",
        "tests/test_outbox.py::test_away_is_said_once_nothing_is_lost_and_a_stage_does_not_wait",
        "assert (0, 0, {}) == (1, 0, {})",
    ),
    Fault(
        "answer breaks off",
        "aligntune/store.py",
        "    rest_utils.verify_rest_response = _whole\n",
        "",
        "tests/faults/test_outages.py"
        "::test_a_run_that_begins_while_answers_are_lost_is_there_once_and_whole[torn]",
        "DID NOT RAISE ServiceError",
    ),
    Fault(
        "line cut between calls",
        "aligntune/registry.py",
        "if version.tags.get(KEY) == key:",
        "if version.tags.get(ARTIFACT) == key:",
        "tests/faults/test_outages.py"
        "::test_a_line_cut_between_any_two_calls_registers_and_promotes_once",
        "too many values to unpack",
    ),
    Fault(
        "G12",
        "flows/artifacts.py",
        "PATIENCE * 0.5**_prefect.failures",
        "PATIENCE",
        "tests/flows/test_artifacts.py"
        "::test_a_server_that_is_gone_is_waited_for_once_and_then_shortly",
        "assert sum(seconds(60) for _ in range(6)) < 18",
    ),
    Fault(
        "G14",
        "aligntune/config/reader.py",
        """\
            except ValueError as error:
                self._fail(event.start_mark, str(error))
        if problem""",
        """\
            except TypeError as error:
                self._fail(event.start_mark, str(error))
        if problem""",
        "tests/config/test_config_fuzz.py"
        "::test_a_thousand_mutated_configs_are_configs_or_explained_errors",
        "ValueError: the number ",
    ),
    Fault(
        "G14 safe to print",
        "aligntune/config/script.py",
        '"".join(c if c.isprintable() else " " for c in lines[line - 1][start : start + 100])',
        "lines[line - 1][start : start + 100]",
        "tests/config/test_config_fuzz.py::test_a_damaged_file_is_a_config_or_an_explained_error",
        '.replace("\\n", "").isprintable()',
    ),
    Fault(
        "G15",
        "aligntune/config/base.py",
        'extra="forbid",',
        'extra="ignore",',
        "tests/config/test_config_typos.py"
        "::test_every_typo_is_refused_and_answered_with_the_nearest_key[logging]",
        "assert found, line",
    ),
    Fault(
        "G15 nearest",
        "aligntune/config/nearest.py",
        "counts.get(close, 2) <= 1",
        "counts.get(close, 2) < 1",
        "tests/config/test_config_typos.py"
        "::test_every_typo_is_refused_and_answered_with_the_nearest_key[notifications.0]",
        ">= 0.95",
    ),
    Fault(
        "G16",
        "aligntune/data/turns.py",
        "    if not isinstance(item, dict):\n        raise",
        "    if item is None:\n        raise",
        "tests/faults/test_data_fuzz.py",
        "AttributeError: 'list' object has no attribute 'keys'",
    ),
    Fault(
        "G17 download",
        "aligntune/hub.py",
        "        if file.matches(path):\n            return path\n",
        "        return path\n",
        "tests/faults/test_hub.py::test_a_download_is_right_or_fails_in_time",
        "tamper: wrong bytes",
        seed=1042,  # its tampered file is the model's, and little before it takes time
    ),
    Fault(
        "G17 push",
        "aligntune/hub.py",
        """\
        commit = api.create_commit(
            repo_id, operations, commit_message=message, parent_commit=commit
        ).oid
""",
        """\
        for each in operations:
            commit = api.create_commit(repo_id, [each], commit_message=message).oid
""",
        "tests/faults/test_hub.py::test_a_killed_push_leaves_the_old_model_or_the_new_one",
        "one commit, however often it was tried",
    ),
    Fault(
        "G18",
        "aligntune/config/load.py",
        "{path: _discreet(at) for path, at in settings.places.items()}",
        "settings.places",
        "tests/config/test_config_secrets.py"
        "::test_a_value_that_looks_like_a_secret_is_refused_and_not_shown",
        "--set datasets.0.name=hf_",
    ),
    Fault(
        "G18 bill of materials",
        "aligntune/sbom.py",
        "without_places(public(name))",
        "public(name)",
        "tests/test_papers.py::test_the_bill_has_no_secret_no_place_and_the_same_bytes_again",
        "assert '/home' not in",
    ),
    Fault(
        "G19",
        "aligntune/models/intake.py",
        "        _check_link(path, directory)\n",
        "",
        "tests/security/test_evil_models.py"
        "::test_an_evil_model_is_refused_by_file_and_key_and_runs_nothing[21]",
        "DID NOT RAISE ConfigError",
    ),
    Fault(
        "G20",
        "aligntune/config/logging.py",
        """run_name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")""",
        """run_name: str | None = Field(None, pattern=r"^[A-Za-z0-9._/-]{1,64}$")""",
        HOSTILE,
        "Escaped: ",
    ),
    Fault(
        "G20 revision",
        "aligntune/hub.py",
        r"""r"(?!.*(?:\.\.|//))[A-Za-z0-9_]""",
        r"""r"[A-Za-z0-9_]""",
        HOSTILE,
        "Escaped: ",
    ),
    Fault(
        "G21",
        "aligntune/supervise.py",
        "if silent < PATIENCE * limit and self._busy(silent):",
        "if silent < PATIENCE * limit or self._busy(silent):",
        "tests/test_supervise.py"
        "::test_an_idle_child_hangs_after_its_silence_and_a_busy_one_after_four_times_as_long",
        "argument of type 'NoneType'",
    ),
    Fault(
        "G21 stacks",
        "aligntune/launch.py",
        "            child.dump_stacks()\n",
        "",
        "tests/test_launch.py"
        "::test_a_hang_is_found_its_stacks_are_logged_and_nothing_of_it_is_left",
        "assert 'in deep_inside' in",
    ),
    Fault(
        "G26",
        "aligntune/rewards/sandbox.py",
        '*(shared if root else ["--unshare-all"]),',
        '*(shared if root else ["--unshare-all"]), "--share-net",',
        "tests/rewards/test_hostile.py::test_hostile_programs_get_nothing",
        "assert [('network', 3)] == []",
    ),
    Fault(
        "G26 verdict",
        "aligntune/rewards/code.py",
        'json.dumps([one["function"], one["args"]])',
        'json.dumps([one["function"], one["args"], {"expected": one["expected"]}])',
        "tests/rewards/test_hostile.py::test_programs_that_fake_their_verdict_score_nothing",
        "first extra item: 'command line'",
    ),
    Fault(
        "cancel",
        "aligntune/launch.py",
        "            self._process.terminate()\n",
        "            self._process.kill()\n",
        "tests/flows/test_cancel.py::test_processes_that_train_together_end_together",
        "max() arg is an empty sequence",
    ),
    Fault(
        "promotion",
        "aligntune/promotion.py",
        "aliases = {PREVIOUS: before, CHAMPION: champion} if before",
        "aliases = {CHAMPION: champion, PREVIOUS: before} if before",
        f"{PROMOTION}[6]",
        "and a way back to the one before",
    ),
    Fault(
        "promotion completed",
        "aligntune/promotion.py",
        "yield Book(client, name, _complete(client, name))",
        "yield Book(client, name, None)",
        f"{PROMOTION}[8]",
        "aligntune.moving",
    ),
    Fault(
        "markup",
        "aligntune/report/words.py",
        r"""letter in "\\`*|[]<>~" """.rstrip(),
        r"""letter in "\\`*|[]>~" """.rstrip(),
        "tests/security/test_markdown.py::test_no_text_becomes_markup",
        "html_inline",
    ),
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The project, as it is now."""
    project = tmp_path_factory.mktemp("seen") / "project"
    project.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(ROOT / name, project / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, project / name)
    if (ROOT.parent / "shared").is_dir():
        (project.parent / "shared").symlink_to(ROOT.parent / "shared")
    return project


def run(copy, *command, **environment):
    """The exit code of a Python command in the copy, and what was said."""
    own = {"PYTHONPATH": str(copy), "PYTEST_ADDOPTS": ""}
    with (copy / "said.txt").open("w+") as said:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=copy, env=os.environ | own | environment,
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(LONGEST)
        finally:
            if process.poll() is None:
                end_session(process.pid)
        said.seek(0)
        return code, said.read()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_the_faults_are_about_code_that_is_there(fault):
    assert fault.applied((ROOT / fault.file).read_text(encoding="utf-8"))


@pytest.mark.slow
def test_children_import_the_copy_too(copy):
    where = "import aligntune, flows; print(aligntune.__file__, flows.__file__)"
    code, said = run(
        copy, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {where!r}])"
    )
    assert (code, said.split()) == (
        0,
        [str(copy / n / "__init__.py") for n in ("aligntune", "flows")],
    )


@pytest.mark.slow
@pytest.mark.timeout(2 * LONGEST)
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_the_trial_of_a_row_notices_the_fault(copy, fault):
    file = copy / fault.file
    before = file.read_text(encoding="utf-8")
    compiled = Path(importlib.util.cache_from_source(str(file)))
    compiled.unlink(missing_ok=True)
    file.write_text(fault.applied(before), encoding="utf-8")
    try:
        arguments = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", fault.test)
        code, said = run(copy, *arguments, **SMALL, FAULT_SEED=str(fault.seed))
    finally:
        file.write_text(before, encoding="utf-8")
        compiled.unlink(missing_ok=True)
    if code == 0 and " passed" not in said and " skipped" in said:
        pytest.skip(f"its trial is skipped here: {said[-500:]}")
    assert (code, fault.says in said) == (FAILED, True), (
        f"{fault.test}: exit {code}\n{said[-5000:]}"
    )
