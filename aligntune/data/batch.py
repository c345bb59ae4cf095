"""What is done with a batch of a source's rows. A pure function of the batch, so that worker
processes give the same result as one process does, whatever their number."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from aligntune.config.data import Sameness, TaskType
from aligntune.config.slices import ROWS_SEED
from aligntune.data import clean, schema
from aligntune.data.formats import Reader
from aligntune.data.mix import keys
from aligntune.data.rows import Row, Unreadable, batched, columns_in, encode, question_of
from aligntune.errors import DataError, ResourceError

if TYPE_CHECKING:
    from rensa import RMinHash

    from aligntune.data.tokens import Tokens

T = TypeVar("T")
TOGETHER = 128
"""Rows of which all tokens are in memory: of a conversation those before each of its answers."""
Numbered = list[tuple[int, Row | Unreadable]]
"""(index in the source, row)."""
Fit = Literal["fits", "cut", "lost"]


@dataclass(frozen=True, slots=True)
class Fitted:
    """The tokens of a row."""

    packed: bytes
    """Empty where there is no tokenizer."""
    length: int
    """Of the longest sequence."""
    fit: Fit


@dataclass(frozen=True)
class Good:
    """The rows of a batch that are what they should be, a list per column."""

    rows: list[int]
    """Their indices in the source."""
    lines: list[bytes]
    tokens: list[bytes]
    """Packed; empty where there is no tokenizer."""
    lengths: list[int]
    """Tokens of a row's longest sequence."""
    fits: list[Fit]
    keys: list[int]
    """64 bits that are equal for equal questions."""
    same: list[bytes]
    """Equal for duplicates; empty where they are kept."""

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Made:
    """What a batch became."""

    good: Good
    invalid: list[tuple[int, str, Any]]
    """(index, reason, the source's row)."""
    optional: set[str]
    """What `columns_in` says of the good rows."""
    signatures: "list[RMinHash] | None"
    """MinHash of each good row, where near duplicates are looked for."""


@dataclass(frozen=True)
class Work:
    """How the batches of one source are worked on."""

    reader: Reader
    duplicates: Sameness
    similar: bool
    """Whether near duplicates are looked for."""
    tokenizer: Path | None
    trust_remote_code: bool
    max_length: int | None
    cut: Literal["start", "end"]

    def __call__(self, batch: Numbered) -> Made:
        indices, rows, invalid = self._canonical(batch)
        wrong = schema.faults(rows, self.reader.task)
        invalid += [(indices[position], reason) for position, reason in wrong.items()]
        indices, rows = _without(wrong, indices), _without(wrong, rows)
        fitted = self._fitted(rows)
        mute = {at: reason for at, reason in enumerate(fitted) if isinstance(reason, str)}
        invalid += [(indices[position], reason) for position, reason in mute.items()]
        indices, rows = _without(mute, indices), _without(mute, rows)
        given = dict(batch) if invalid else {}
        return Made(
            self._good(indices, rows, [found for found in fitted if not isinstance(found, str)]),
            [(index, reason, _shown(given[index])) for index, reason in sorted(invalid)],
            columns_in(rows),
            clean.signatures(rows) if self.similar else None,
        )

    def _canonical(self, batch: Numbered) -> tuple[list[int], list[Row], list[tuple[int, str]]]:
        """(indices, their rows, (index, reason) of those that are none)."""
        indices: list[int] = []
        made: list[Row] = []
        invalid: list[tuple[int, str]] = []
        for index, row in batch:
            if isinstance(row, Unreadable):
                invalid.append((index, row.reason))
                continue
            try:
                made.append(self.reader(row))
                indices.append(index)
            except DataError as error:
                invalid.append((index, str(error)))
            except RecursionError:
                invalid.append((index, "nested too deep"))
        return indices, made, invalid

    def _fitted(self, rows: Sequence[Row]) -> "list[Fitted | str]":
        """By row its tokens, or why there are none."""
        if self.tokenizer is None:
            return [Fitted(b"", 0, "fits")] * len(rows)
        from aligntune.data.tokens import tokenized

        tokenizer = tokenizer_in(self.tokenizer, self.trust_remote_code)
        return [
            found if isinstance(found, str) else self._fit(found)
            for some in batched(rows, TOGETHER)
            for found in tokenized(some, self.reader.task, tokenizer)
        ]

    def _good(self, indices: list[int], rows: list[Row], fitted: "list[Fitted]") -> Good:
        kept = self.duplicates
        questions: list[str] = []
        same: list[bytes] = []
        for row in rows:  # each needs the question's normal form, which is kept for a moment
            questions.append(clean.normalised(question_of(row)))
            same.append(b"" if kept == "keep" else clean.duplicate_key(row, kept))
        return Good(
            rows=indices,
            lines=[encode(row) for row in rows],
            tokens=[found.packed for found in fitted],
            lengths=[found.length for found in fitted],
            fits=[found.fit for found in fitted],
            keys=keys(ROWS_SEED, questions),
            same=same,
        )

    def _fit(self, tokens: "list[Tokens]") -> "Fitted":
        from aligntune.data.tokens import longest, pack

        length = longest(tokens)
        left, fit = self._left(tokens, length)
        return Fitted(pack(left), length, fit)

    def _left(self, tokens: "list[Tokens]", length: int) -> "tuple[list[Tokens], Fit]":
        """What is learned of a row, and how it fits into `max_length`."""
        limit = self.max_length
        if limit is None or length <= limit:
            return tokens, "fits"
        if self.cut == "end":
            # Later turns of a conversation of which nothing would be left are not learned.
            tokens = [sequence for sequence in tokens if sequence.start < limit]
        left = slice(limit) if self.cut == "end" else slice(-limit, None)
        return tokens, "cut" if tokens and not _alike(tokens, left, self.reader.task) else "lost"


def _without(positions: Mapping[int, str], items: list[T]) -> list[T]:
    if not positions:
        return items
    return [item for position, item in enumerate(items) if position not in positions]


def _alike(tokens: "list[Tokens]", left: slice, task: TaskType) -> bool:
    """Whether nothing is left to tell a pair's answers apart."""
    if task != "preference":
        return False
    chosen, rejected = (sequence.ids[left] for sequence in tokens)
    return chosen == rejected


class Mapper(Protocol):
    """`map` of one argument list, perhaps in other processes, with the results in order."""

    def __call__(self, work: Work, batches: Iterable[Numbered], /) -> Iterator[Made]: ...


@contextmanager
def workers(count: int) -> Iterator[Mapper]:
    """A mapper over `count` processes, or over this one."""
    if count <= 1:
        yield map
        return
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_patient) as pool:

        def mapped(work: Work, batches: Iterable[Numbered], /) -> Iterator[Made]:
            waiting: deque[Future[Made]] = deque()
            for batch in batches:
                waiting.append(pool.submit(work, batch))
                if len(waiting) > 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        try:
            yield mapped
        except BrokenProcessPool as error:
            raise ResourceError(
                "a worker that prepares data was killed, most likely for using too much memory; "
                "lower launch.data_workers"
            ) from error


def _patient() -> None:
    """What a terminal sends reaches every process in it, but it is the parent who decides."""
    import signal

    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


@lru_cache(maxsize=1)
def tokenizer_in(path: Path, trust_remote_code: bool) -> Any:
    """The tokenizer in a directory, loaded once per process."""
    from aligntune.models.load import load_tokenizer

    return load_tokenizer(path, trust_remote_code=trust_remote_code)


def _shown(row: Row | Unreadable) -> Any:
    return row.content if isinstance(row, Unreadable) else row
