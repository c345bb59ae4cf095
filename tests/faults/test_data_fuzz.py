"""Rows that went wrong on their way: kept, or refused with the source, the row and the reason.

FAULT_ROWS and FAULT_SEED play more rows, or the same ones again.
"""

import copy
import json
import os
import random
import re
import traceback
from collections import Counter

import pytest
from data.conftest import DEFAULTS

from aligntune.config.data import Dataset
from aligntune.config.slices import DataSlice
from aligntune.data.prepare import Place, prepare
from aligntune.data.sources import fingerprint
from aligntune.errors import DataError

ROWS = int(os.environ.get("FAULT_ROWS", "600"))
SEED = int(os.environ.get("FAULT_SEED", str(random.SystemRandom().randrange(10**6))))
PER_FILE = 40
SAID = [
    {"role": "user", "content": "What is two and two?"},
    {"role": "assistant", "content": "Four."},
]
GOOD = (
    {"prompt": "Say red", "completion": "red"},
    {"prompt": "Say red", "chosen": "red", "rejected": "blue"},
    {"messages": SAID},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    {"instruction": "Add", "input": "1 and 2", "output": "3"},
    {"question": "How many?", "answer": "So 3 + 4 = 7.\n#### 7"},
    {"prompt": SAID[:1], "chosen": SAID[1:], "rejected": [{"role": "assistant", "content": "5"}]},
    {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: No"},
    {"prompt": "Say red", "completion": "red", "label": True},
)
ODD = (
    None, "", " ", "\x00", "\ud83d", "a" * 20_000, 0, -1, 1.5, float("nan"), float("inf"), True,
    [], {}, [None], [[]], {"role": "user"}, {"a": {"b": {"c": []}}}, "\u202e", "<|im_end|>", "{}",
    [{"role": "user", "content": None}], [{"role": "wizard", "content": "x"}], 2**70, "null",
)  # fmt: skip


def places(value, path=()):
    """Every place inside a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(child, (*path, key))


def mutated(row, rng):
    """A copy of `row` with something replaced, lost, doubled, renamed or added."""
    row = copy.deepcopy(row)
    path = rng.choice([p for p in places(row) if p])
    holder = row
    for step in path[:-1]:
        holder = holder[step]
    last, odd = path[-1], copy.deepcopy(rng.choice(ODD))
    how = rng.choice(("replace", "replace", "lose", "add", "wrap"))
    if how == "replace":
        holder[last] = odd
    elif how == "lose":
        del holder[last]
    elif how == "wrap":
        holder[last] = [holder[last]]
    elif isinstance(holder, dict):
        holder[rng.choice(("extra", "Prompt", "text", "role", ""))] = odd
    else:
        holder.append(odd)
    return row


def line(row, rng):
    """The row as a line of a file, sometimes a broken one."""
    text = json.dumps(row, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if rng.random() < 0.05:
        place = rng.randrange(len(text))
        text = text[:place] + rng.choice((b"", b"\xff", b"}", b'"')) + text[place + 1 :]
    return text + b"\n"


@pytest.fixture
def rng():
    print(f"FAULT_SEED={SEED}")  # noqa: T201  # shown if the test fails
    return random.Random(SEED)


@pytest.mark.parametrize("policy", ["drop", "error"])
def test_every_row_is_kept_or_refused_by_name(tmp_path, rng, policy):
    ends = Counter()
    for number in range(max(ROWS // PER_FILE // 2, 1)):
        good = rng.choice(GOOD)
        rows = [mutated(good, rng) if rng.random() < 0.7 else good for _ in range(PER_FILE)]
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(b"".join(line(row, rng) for row in rows))
        ends[attempt(path, tmp_path / f"out-{number}", policy)] += 1
    assert ends["kept" if policy == "drop" else "refused"], f"this tries too little: {ends}"


def attempt(path, out, policy):
    """How the data stage ended: `kept` what was good, or `refused` by an error that says where."""
    out.mkdir()
    cleaning = {"on_invalid": policy, "max_invalid": 0.99}
    spec = DataSlice.model_validate(
        DEFAULTS | {"datasets": [Dataset(name=str(path))], "cleaning": cleaning}
    )
    try:
        made = prepare(spec, {"datasets[0]": fingerprint(spec.datasets[0])}, Place(out))
    except DataError as error:
        return refusal(str(error), path, policy)
    except Exception:  # noqa: BLE001  # what a fuzz is looking for
        pytest.fail(f"{path.read_bytes()[:2000]!r}\n{traceback.format_exc()}")
    refused = (out / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    for rejected in map(json.loads, refused):
        assert rejected["source"], rejected
        assert isinstance(rejected["row"], int), rejected
        assert rejected["reason"], rejected
    assert made.metrics["rows_train"] > 0
    return "kept"


def refusal(said, path, policy):
    """An error that says which source it is, and where that matters, which row."""
    assert path.name in said, f"which source? {said}"
    if policy == "error":
        assert re.search(rf"{path.name}:\d+: .", said), f"which row? {said}"
    return "refused"
