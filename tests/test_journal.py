"""Every step is in the journal once, however often its stage was interrupted."""

from aligntune.journal import Journal, read


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
