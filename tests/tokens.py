"""What the data stage writes, in a test: rows of one split, and their tokens."""

from pathlib import Path
from tempfile import TemporaryDirectory

from datasets import Dataset

from aligntune.config.algo import TASK
from aligntune.data.rows import columns_in, encode, write_rows
from aligntune.data.tokens import pack, tokenized
from aligntune.data.tokens import write as write_tokens
from aligntune.models.load import load_tokenizer
from aligntune.train.rows import training_rows


def write_split(folder: Path, rows, task, model: Path, split="train") -> Path:
    """`<split>.parquet` and its tokens, by the tokenizer of `model`."""
    folder.mkdir(exist_ok=True)
    text = b"".join(map(encode, rows))
    write_rows(folder / f"{split}.parquet", [text], task, columns_in(rows))
    made = tokenized(rows, task, load_tokenizer(model))
    write_tokens(folder / f"{split}.tokens.parquet", [pack(row) for row in made])
    return folder


def trained_on(rows, spec, model: Path) -> Dataset:
    """`rows` as the algorithm of `spec` learns from them."""
    with TemporaryDirectory() as name:
        folder = write_split(Path(name), rows, TASK[spec.algo], model)
        return training_rows(folder, "train", spec)
