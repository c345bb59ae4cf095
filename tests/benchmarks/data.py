"""The data stage against `datasets`, on the same rows, each in a process of its own.

    python tests/benchmarks/data.py --rows 1000000

ours:      read, make canonical, validate, drop duplicates, hold out, mix 7:3, write parquet
datasets:  load_dataset("json"), interleave_datasets([0.7, 0.3]), shuffle, materialise

Prints CPU seconds, rows per CPU second and peak memory of both, and their ratio.
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
from pathlib import Path

LINE = "{instruction} {words}"
WORDS = ("model", "reward", "gradient", "answer", "question", "policy", "sample", "token", "value")


def write(folder: Path, rows: int) -> None:
    """Two files of alpaca rows, 700 bytes each, every prompt different."""
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


def ours(folder: Path, workers: int) -> int:
    from aligntune.config.data import Cleaning, Dataset, Mix
    from aligntune.config.slices import DataSlice
    from aligntune.data.prepare import Place, prepare
    from aligntune.data.sources import fingerprint

    datasets = (
        Dataset(name=str(folder / "large.jsonl"), weight=7),
        Dataset(name=str(folder / "small.jsonl"), weight=3),
    )
    spec = DataSlice(
        datasets=datasets,
        task="conversation",
        heldout_fraction=0.001,
        max_heldout=256,
        cleaning=Cleaning(decontaminate=None),
        mix=Mix(),
        max_length=None,
        trust_remote_code=False,
        workers=workers,
        seed=42,
    )
    prints = {f"datasets[{index}]": fingerprint(found) for index, found in enumerate(datasets)}
    out = folder / "out"
    out.mkdir()
    return int(prepare(spec, prints, Place(out)).metrics["rows_train"])


def theirs(folder: Path, workers: int) -> int:
    import datasets

    cache = str(folder / "cache")
    parts = [
        datasets.load_dataset("json", data_files=str(folder / name), split="train", cache_dir=cache)
        for name in ("large.jsonl", "small.jsonl")
    ]
    mixed = datasets.interleave_datasets(parts, probabilities=[0.7, 0.3], seed=42)
    return len(mixed.shuffle(seed=42).flatten_indices())


SIDES = {"ours": ours, "datasets": theirs}


def measure(side: str, folder: Path, workers: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command += ["--workers", str(workers)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    result: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return result


def one_side(side: str, folder: Path, workers: int) -> None:
    began = time.monotonic()
    rows = SIDES[side](folder, workers)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(each.ru_utime + each.ru_stime for each in usage)
    peak = max(each.ru_maxrss for each in usage) / 1024
    wall = time.monotonic() - began
    print(json.dumps({"rows": rows, "cpu_s": cpu, "wall_s": wall, "peak_mb": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.side:
        one_side(asked.side, asked.folder, asked.workers)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, asked.rows)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        print(f"{asked.rows:,} rows, {size:,.0f} MB of jsonl")
        found = {side: measure(side, folder, asked.workers) for side in SIDES}
    for side, each in found.items():
        rate = asked.rows / each["cpu_s"]
        print(
            f"{side:<9} {each['rows']:>10,.0f} rows out  {each['cpu_s']:7.1f} CPU-s  "
            f"{each['wall_s']:7.1f} s  {rate:>9,.0f} rows per CPU-s  {each['peak_mb']:6,.0f} MB"
        )
    ratio = found["datasets"]["cpu_s"] / found["ours"]["cpu_s"]
    print(f"ratio     {ratio:.2f} times the rows per CPU-s")


if __name__ == "__main__":
    main()
