"""Canonical rows as tokens of the run's own tokenizer, made once and read by every training stage.

A row becomes sequences: of a conversation one per assistant turn that is to be learned, with the
turns before it as the prompt; of a pair two, with the chosen and with the rejected answer; of a
prompt one, up to the answer that is to come. Every such turn is learned once, whatever the chat
template: templates that mark the assistant's words for a loss mask are the exception.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aligntune.config.data import TaskType
from aligntune.data.encode import encoded
from aligntune.data.rows import BATCH, TOOLS, UNLEARNED, WEIGHT, Message, Row, batched
from aligntune.errors import DataError

if TYPE_CHECKING:
    import pyarrow
    from transformers import PreTrainedTokenizerBase

COLUMN = "tokens"


@dataclass(frozen=True, slots=True)
class Tokens:
    """A prompt and the answer to it."""

    ids: list[int]
    start: int
    """Where the answer begins: `ids[start:]`. Tokens that the answer changes belong to it."""


def tokenized(
    rows: Sequence[Row], task: TaskType, tokenizer: "PreTrainedTokenizerBase"
) -> list[list[Tokens] | str]:
    """By row its sequences, or why the chat template refuses it."""
    spoken: list[list[tuple[str, str]] | str] = []
    for row in rows:
        try:
            spoken.append(_texts(row, task, tokenizer))
        except DataError as error:
            spoken.append(str(error))
    texts = (
        [text for pair in found for text in pair] for found in spoken if not isinstance(found, str)
    )
    ids = encoded(texts, tokenizer)
    return [
        found if isinstance(found, str) else _sequences([(ids[a], ids[w]) for a, w in found], task)
        for found in spoken
    ]


def _texts(row: Row, task: TaskType, tokenizer: "PreTrainedTokenizerBase") -> list[tuple[str, str]]:
    """(prompt, prompt and answer) of each sequence."""
    from aligntune.models.chat import is_text, render

    tools = row.get(TOOLS)

    def asked(prompt: list[Message]) -> str:
        return render(tokenizer, prompt, to_answer=True, tools=tools)

    def answered(messages: list[Message]) -> str:
        text = render(tokenizer, messages, to_answer=False, tools=tools)
        if "tool_calls" in messages[-1]:
            silent = {name: messages[-1][name] for name in ("role", "content")}
            if text == render(tokenizer, [*messages[:-1], silent], to_answer=False, tools=tools):
                raise DataError(
                    "the model's chat template leaves out calls of tools, so there is nothing to "
                    "learn; set model.chat_template, or take a model that calls tools"
                )
        return text

    if task == "conversation":
        messages: list[Message] = row["messages"]
        if is_text(messages):
            text = messages[0]["content"]
            return [("", f"{_beginning(tokenizer)}{text}{tokenizer.eos_token}")]
        turns = [i for i, message in enumerate(messages) if _learned(message)]
        if not turns:
            raise DataError(f"every answer has `{WEIGHT}` 0, so there is nothing to learn")
        return [(asked(messages[:turn]), answered(messages[: turn + 1])) for turn in turns]
    prompt = asked(row["prompt"])
    if task == "prompt":
        return [(prompt, prompt)]
    answers = ("chosen", "rejected") if task == "preference" else ("completion",)
    return [(prompt, answered([*row["prompt"], *row[name]])) for name in answers]


def _learned(message: Message) -> bool:
    return message["role"] == "assistant" and message.get(WEIGHT) != UNLEARNED


@lru_cache(maxsize=1)
def _beginning(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The token that the tokenizer itself puts before text, if it does."""
    ids = tokenizer("a").input_ids
    starts = tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
    return str(tokenizer.bos_token) if starts else ""


def _sequences(pairs: Sequence[tuple[list[int], list[int]]], task: TaskType) -> list[Tokens]:
    starts = [_shared(asked, whole) for asked, whole in pairs]
    if task == "preference":
        # Both answers of a pair are to the same prompt.
        starts = [min(starts)] * len(starts)
    return [Tokens(whole, start) for (_, whole), start in zip(pairs, starts, strict=True)]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest common start: a prompt's last token can merge with the answer."""
    if other[: len(one)] == one:
        return len(one)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in same)


def longest(tokens: Sequence[Tokens]) -> int:
    return max(len(sequence.ids) for sequence in tokens)


def pack(tokens: Sequence[Tokens]) -> bytes:
    """The sequences of a row as int32: how many, start and length of each, all ids."""
    head = [len(tokens)]
    for sequence in tokens:
        head += (sequence.start, len(sequence.ids))
    ids = [token for sequence in tokens for token in sequence.ids]
    return np.array(head + ids, dtype=np.int32).tobytes()


def write(path: Path, rows: Iterable[bytes]) -> None:
    """Packed rows as parquet: a column `tokens` of lists of {ids, start}."""
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, _schema(), compression="zstd", compression_level=1) as writer:
        for batch in batched(rows, BATCH):
            writer.write_table(_table(batch))


def read(path: Path) -> "pyarrow.Table":
    """The column that `write` wrote.

    Raises:
        DataError: the data stage was run without a tokenizer.
    """
    import pyarrow.parquet as pq

    if not path.exists():
        raise DataError(f"{path} is missing, so there is nothing to train on; run the data stage")
    return pq.read_table(path)


def check_known(path: Path, tokenizer: "PreTrainedTokenizerBase", embeddings: int) -> None:
    """Raises DataError if a model with so many embeddings has none for a token of these rows:
    some published tokenizers know more tokens, for images, than their text model does."""
    import pyarrow.parquet as pq

    # By what the file says of its blocks: reading millions of rows again takes gigabytes.
    blocks = pq.read_metadata(path)
    ids = (blocks.row_group(i).column(0).statistics for i in range(blocks.num_row_groups))
    highest = max((block.max for block in ids if block and block.has_min_max), default=None)
    if highest is not None and highest >= embeddings:
        raise DataError(
            f"the {path.name.partition('.')[0]} rows have the token "
            f"{tokenizer.convert_ids_to_tokens(highest)!r}, for which the model has no embedding: "
            f"its id is {highest}, and there are {embeddings}; take it out of the texts"
        )


def _schema() -> "pyarrow.Schema":
    import pyarrow as pa

    sequence = pa.struct([("ids", pa.list_(pa.int32())), ("start", pa.int32())])
    return pa.schema([(COLUMN, pa.list_(sequence))])


def _table(rows: Sequence[bytes]) -> "pyarrow.Table":
    import pyarrow as pa

    unpacked = [np.frombuffer(row, dtype=np.int32) for row in rows]
    counts = [int(row[0]) for row in unpacked]
    heads = [row[1 : 1 + 2 * n].reshape(n, 2) for row, n in zip(unpacked, counts, strict=True)]
    starts, lengths = np.concatenate(heads).T
    ids = np.concatenate([row[1 + 2 * n :] for row, n in zip(unpacked, counts, strict=True)])
    sequences = pa.StructArray.from_arrays(
        [pa.ListArray.from_arrays(_offsets(lengths), pa.array(ids)), pa.array(starts)],
        names=["ids", "start"],
    )
    column = pa.ListArray.from_arrays(_offsets(np.array(counts, dtype=np.int32)), sequences)
    return pa.Table.from_arrays([column], schema=_schema())


def _offsets(lengths: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
