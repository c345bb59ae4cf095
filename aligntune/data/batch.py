"""What is done with a batch of a source's rows. A pure function of the batch, so that worker
processes give the same result as one process does, whatever their number."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from aligntune.config.data import Sameness, TaskType
from aligntune.data import clean, schema
from aligntune.data.formats import Reader
from aligntune.data.mix import key
from aligntune.data.rows import Row, Unreadable, encode, question_of
from aligntune.errors import DataError, ResourceError

if TYPE_CHECKING:
    from rensa import RMinHash

    from aligntune.data.tokens import Tokens

Numbered = list[tuple[int, Row | Unreadable]]
"""(index in the source, row)."""
Fit = Literal["fits", "cut", "lost"]


class Good(NamedTuple):
    """A row that is what it should be."""

    row: int
    """Its index in the source."""
    line: bytes
    tokens: bytes
    """Packed; empty where there is no tokenizer."""
    length: int
    """Tokens of its longest sequence."""
    fit: Fit
    key: int
    """64 bits that are equal for equal questions."""
    same: bytes
    """Equal for duplicates; empty where they are kept."""


@dataclass(frozen=True)
class Made:
    """What a batch became."""

    good: list[Good]
    invalid: list[tuple[int, str, Any]]
    """(index, reason, the source's row)."""
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
    seed: int

    def __call__(self, batch: Numbered) -> Made:
        rows, invalid = self._canonical(batch)
        given = dict(batch)
        wrong = schema.faults([row for _, row in rows], self.reader.task)
        sound = [pair for position, pair in enumerate(rows) if position not in wrong]
        invalid += [(rows[position][0], reason) for position, reason in wrong.items()]
        good: list[Good] = []
        texts: list[Row] = []
        for (index, row), tokens in zip(sound, self._tokens(sound), strict=True):
            if isinstance(tokens, str):
                invalid.append((index, tokens))
            else:
                good.append(self._good(index, row, tokens))
                texts.append(row)
        refused = [(index, reason, _shown(given[index])) for index, reason in sorted(invalid)]
        return Made(good, refused, clean.signatures(texts) if self.similar else None)

    def _canonical(self, batch: Numbered) -> tuple[list[tuple[int, Row]], list[tuple[int, str]]]:
        made: list[tuple[int, Row]] = []
        invalid: list[tuple[int, str]] = []
        for index, row in batch:
            if isinstance(row, Unreadable):
                invalid.append((index, row.reason))
                continue
            try:
                made.append((index, self.reader(row)))
            except DataError as error:
                invalid.append((index, str(error)))
        return made, invalid

    def _tokens(self, rows: Sequence[tuple[int, Row]]) -> Sequence["list[Tokens] | str"]:
        if self.tokenizer is None:
            return [[]] * len(rows)
        from aligntune.data.tokens import tokenized

        tokenizer = tokenizer_in(self.tokenizer, self.trust_remote_code)
        return tokenized([row for _, row in rows], self.reader.task, tokenizer)

    def _good(self, index: int, row: Row, tokens: "list[Tokens]") -> Good:
        from aligntune.data import tokens as module

        length = module.longest(tokens) if tokens else 0
        limit = self.max_length
        fit: Fit = "fits"
        if limit is not None and length > limit:
            if self.cut == "end":
                # Later turns of a conversation of which nothing would be left are not learned.
                tokens = [sequence for sequence in tokens if sequence.start < limit]
            left = slice(limit) if self.cut == "end" else slice(-limit, None)
            fit = "cut" if tokens and not _alike(tokens, left, self.reader.task) else "lost"
        kept = self.duplicates
        return Good(
            row=index,
            line=encode(row),
            tokens=module.packed(tokens) if tokens else b"",
            length=length,
            fit=fit,
            key=key(self.seed, clean.normalised(question_of(row))),
            same=b"" if kept == "keep" else clean.duplicate_key(row, kept),
        )


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
    """Ctrl-C reaches every process of the terminal, but it is the parent who decides."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


@lru_cache(maxsize=1)
def tokenizer_in(path: Path, trust_remote_code: bool) -> Any:
    """The tokenizer in a directory, loaded once per process."""
    from aligntune.models.load import load_tokenizer

    return load_tokenizer(path, trust_remote_code=trust_remote_code)


def _shown(row: Row | Unreadable) -> Any:
    return row.content if isinstance(row, Unreadable) else row
