import pytest

from aligntune.estimate.room import free_memory, keeps_heap

GB = 2**30


@pytest.fixture
def meminfo(tmp_path):
    path = tmp_path / "meminfo"
    path.write_text(f"MemTotal: 99999999 kB\nMemAvailable: {8 * 2**20} kB\n")
    return path


def place(tmp_path, lines, **files):
    (tmp_path / "cgroup").write_text(lines)
    for name, value in files.items():
        path = tmp_path / "mount" / name.replace("__", "/").replace("-", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(value))
    return tmp_path / "cgroup", tmp_path / "mount"


def test_without_a_container_it_is_what_the_machine_has(meminfo, tmp_path):
    assert free_memory(meminfo, *place(tmp_path, "0::/\n")) == 8 * GB


def test_a_limit_leaves_what_is_not_used_yet(meminfo, tmp_path):
    where = place(tmp_path, "0::/app\n", **{
        "app__memory-max": 4 * GB, "app__memory-current": 3 * GB,
        "app__memory-stat": f"anon 5\ninactive_file {GB // 2}\n",
    })  # fmt: skip
    assert free_memory(meminfo, *where) == 1.5 * GB


def test_the_tightest_limit_around_the_process_counts(meminfo, tmp_path):
    where = place(tmp_path, "0::/app/inner\n", **{
        "app__inner__memory-max": "max", "app__inner__memory-current": 1,
        "app__memory-max": 2 * GB, "app__memory-current": GB,
    })  # fmt: skip
    assert free_memory(meminfo, *where) == GB


def test_control_groups_of_the_first_version_have_limits_too(meminfo, tmp_path):
    where = place(tmp_path, "5:cpu,memory:/app\n4:pids:/app\n", **{
        "memory__app__memory-limit_in_bytes": 4 * GB,
        "memory__app__memory-usage_in_bytes": GB,
    })  # fmt: skip
    assert free_memory(meminfo, *where) == 3 * GB


def test_a_limit_that_leaves_nothing_leaves_nothing(meminfo, tmp_path):
    where = place(tmp_path, "0::/\n", **{"memory-max": GB, "memory-current": 2 * GB})
    assert free_memory(meminfo, *where) == 0


def test_a_system_that_says_nothing_is_not_guessed_at(tmp_path):
    assert free_memory(tmp_path / "a", tmp_path / "b", tmp_path / "c") is None


@pytest.mark.parametrize(
    ("name", "value", "ours"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "131072", False),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072", False),
        ("GLIBC_TUNABLES", "glibc.rtld.nns=4", True),
    ],
)
def test_a_heap_that_is_set_by_hand_is_left_alone(name, value, ours, monkeypatch):
    if not keeps_heap():
        pytest.skip("the C library has no mallopt, or malloc is set in this environment")
    monkeypatch.setenv(name, value)
    assert keeps_heap() is ours
