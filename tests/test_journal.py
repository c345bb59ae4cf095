"""Every step is in the journal once, however often its stage was interrupted."""

import tracemalloc

from aligntune.journal import Journal, curves, read


def values(path):
    return [(row.step, row.metrics) for row in read(path)]


def test_rows_are_read_as_written(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.write(1, {"loss": 2.0})
    journal.write(2, {"loss": 1.5, "lr": 0.1})
    assert values(journal.path) == [(1, {"loss": 2.0}), (2, {"loss": 1.5, "lr": 0.1})]


def test_a_repeated_step_is_not_written_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = Journal(path)
    for step in (1, 2, 3):
        first.write(step, {"loss": float(step)})
    first.close()
    resumed = Journal(path)
    for step in (2, 3, 4):
        resumed.write(step, {"loss": float(step)})
    assert [step for step, _ in values(path)] == [1, 2, 3, 4]


def test_a_new_metric_of_a_known_step_is_added(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.write(1, {"train/loss": 2.0})
    journal.write(1, {"train/loss": 2.0, "eval/loss": 3.0})
    assert values(journal.path)[1] == (1, {"eval/loss": 3.0})


def test_a_long_run_takes_no_more_memory(tmp_path):
    """Of 1,000 steps of 40 metrics, remembered one by one, it was 4 MB."""
    journal = Journal(tmp_path / "metrics.jsonl")
    names = [f"train/{n}" for n in range(40)]
    journal.write(0, dict.fromkeys(names, 0.5))
    tracemalloc.start()
    for step in range(1, 1000):
        journal.write(step, dict.fromkeys(names, 0.5))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 100_000


def test_steps_of_an_earlier_attempt_are_passed_over_and_none_after_them(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in range(1, 6):
        Journal(path).write(step, {"train/loss": 1 / step})
    Journal(path).write(5, {"eval/loss": 0.5})
    resumed = Journal(path)
    for step in range(3, 9):
        resumed.write(step, {"train/loss": 1 / step, "eval/loss": 0.5})
    steps = {name: steps for name, (steps, _) in curves(path, lambda name: True).items()}
    assert steps == {"train/loss": [*range(1, 9)], "eval/loss": [5, 6, 7, 8]}


def test_a_line_torn_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    journal = Journal(path)
    journal.write(1, {"loss": 2.0})
    with path.open("a") as file:
        file.write('{"step": 2, "metr')
    assert [step for step, _ in values(path)] == [1]
    resumed = Journal(path)
    resumed.write(2, {"loss": 1.0})
    assert values(path) == [(1, {"loss": 2.0}), (2, {"loss": 1.0})]
