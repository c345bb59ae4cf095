"""From a source to the pool: every row is kept, or dropped with a reason."""

import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from aligntune.config.data import Cleaning, Sameness, TaskType
from aligntune.config.slices import DataSlice
from aligntune.data.batch import Good, Made, Mapper, Numbered, Work
from aligntune.data.clean import Similar
from aligntune.data.ledger import Account, Ledger
from aligntune.data.load import Source, chosen
from aligntune.data.pool import Pool
from aligntune.data.rows import BATCH, batched, columns_in, decode
from aligntune.errors import DataError

LISTED = 10
"""Invalid rows that a message lists."""
MAX_LOST: dict[TaskType, float] = {"prompt": 0.5}
"""Share of a source's rows that may have nothing left within `max_length`. Of prompts more, because
to keep only the short ones is usual."""
MAX_LOST_ANSWERS = 0.05


class Intake:
    """Takes sources one after another. Which of two duplicates is kept depends on that order."""

    def __init__(self, spec: DataSlice, pool: Pool, ledger: Ledger, mapper: Mapper) -> None:
        self._spec = spec
        self._pool = pool
        self._ledger = ledger
        self._map = mapper
        self._seen: dict[bytes, int] = {}
        threshold = spec.cleaning.near_duplicates
        self._similar = Similar(threshold) if threshold else None
        self._sources = array("I")
        self._rows = array("Q")
        self.accounts: list[Account] = []
        self.optional: set[str] = set()
        """What `columns_in` says of the rows in the pool."""

    def take(self, source: Source, work: Work, tick: Callable[[int], None]) -> None:
        """Add the source's rows to the pool; `tick` is told how many were looked at.

        Raises:
            DataError: more of its rows are invalid or too long than may be, or none is left.
        """
        indices = chosen(source, self._spec.seed)
        account = Account(source, sampled=len(indices), first=len(self._pool))
        self.accounts.append(account)
        work = replace(work, reader=source.reader)
        for made in self._map(work, _numbered(source, indices.tolist())):
            self._add(account, made)
            tick(len(made.good) + len(made.invalid))
        account.kept = len(self._pool) - account.first
        self._check(account)

    def origin(self, number: int) -> tuple[Account, int]:
        """Where a row of the pool is from: (account, index in the source)."""
        return self.accounts[self._sources[number]], self._rows[number]

    def _add(self, account: Account, made: Made) -> None:
        for index, reason, row in made.invalid:
            self._ledger.drop(account, index, "invalid", reason, row)
        kept = [
            good
            for position, good in enumerate(made.good)
            if self._stays(account, good, made.signatures, position)
        ]
        self.optional |= columns_in([good.line for good in kept])

    def _stays(self, account: Account, good: Good, signatures: Any, position: int) -> bool:
        """Whether the row is added to the pool."""
        if good.fit == "lost" or (good.fit == "cut" and self._spec.cleaning.too_long == "drop"):
            self._drop_long(account, good)
            return False
        if (earlier := self._seen.get(good.same)) is not None:
            self._drop_like(account, good, earlier, exact=True)
            return False
        if self._similar:
            alike = self._similar.first(signatures[position])
            if alike is not None:
                self._drop_like(account, good, alike, exact=False)
                return False
        if self._similar:
            self._similar.add(len(self._pool), signatures[position])
        if good.same:
            self._seen[good.same] = len(self._pool)
        self._pool.add(good.line, good.tokens, good.key)
        self._sources.append(len(self.accounts) - 1)
        self._rows.append(good.row)
        account.lengths.append(good.length)
        account.truncated += good.fit == "cut"
        return True

    def _drop_long(self, account: Account, good: Good) -> None:
        limit = self._spec.max_length
        why = "no answer is left within" if good.fit == "lost" else "more than"
        self._ledger.drop(
            account,
            good.row,
            "too_long",
            f"{good.length} tokens; {why} max_length {limit}",
            decode(good.line),
        )

    def _drop_like(self, account: Account, good: Good, earlier: int, *, exact: bool) -> None:
        other, index = self.origin(earlier)
        row = decode(good.line)
        where = f"{other.source.rows.place(index)} of {other.source.name!r}"
        if exact:
            reason = f"the same {'prompt' if self._prompts(account) else 'row'} as {where}"
            self._ledger.drop(account, good.row, "duplicates", reason, row)
        else:
            self._ledger.drop(account, good.row, "near_duplicates", f"much like {where}", row)

    def _prompts(self, account: Account) -> bool:
        return duplicates(self._spec.cleaning, account.source.reader.task) == "prompt"

    def _check(self, account: Account) -> None:
        cleaning, task = self._spec.cleaning, account.source.reader.task
        invalid = account.dropped["invalid"]
        if cleaning.on_invalid == "error" and invalid:
            raise DataError(self._refusal(account, "cleaning.on_invalid is `error`"))
        if invalid > _limit(cleaning.max_invalid, account):
            allowed = f"only {cleaning.max_invalid:.2%} may be dropped (cleaning.max_invalid)"
            raise DataError(self._refusal(account, allowed))
        if not account.kept:
            raise DataError(f"nothing is left of dataset {account.source.name!r}: {account.story}")
        most = MAX_LOST.get(task, MAX_LOST_ANSWERS)
        lost = account.dropped["too_long"]
        if cleaning.too_long == "truncate" and lost > _limit(most, account):
            raise DataError(
                f"dataset {account.source.name!r}: {lost} of {account.sampled} rows have nothing "
                f"left to learn from within {self._spec.max_length} tokens (at most {most:.0%} "
                "may); raise max_length, or leave them out with `cleaning.too_long: drop`"
            )

    def _refusal(self, account: Account, rule: str) -> str:
        source, invalid = account.source, account.dropped["invalid"]
        commonest = account.reasons.most_common(LISTED)
        lines = [
            f"\n  {account.examples[reason]}: {reason}" + (f" ({count} rows)" if count > 1 else "")
            for reason, count in commonest
        ]
        more = len(account.reasons) - len(commonest)
        rest = f"\n  and {more} more reasons" if more else ""
        return (
            f"dataset {source.name!r}: {invalid} of {account.sampled} rows cannot be used as "
            f"{source.reader.task} rows, and {rule}; correct them (all are listed in "
            f"{self._ledger.path}), or say with `columns` or `format` what is what (they were read "
            f"as {source.reader.layout}){''.join(lines)}{rest}"
        )


def duplicates(cleaning: Cleaning, task: TaskType) -> Sameness:
    """What makes a duplicate of rows of that type."""
    if cleaning.duplicates:
        return cleaning.duplicates
    return "row" if task in ("preference", "unpaired") else "prompt"


def _numbered(source: Source, indices: list[int]) -> Iterator[Numbered]:
    yield from batched(zip(indices, source.rows.at(indices), strict=True), BATCH)


def _limit(share: float, account: Account) -> int:
    """How many of the chosen rows a share of the source may be.

    A small sample can hold more of them than its source does, so it is allowed three standard
    errors more.
    """
    chosen_rows = account.sampled
    source = account.source
    sampled = source.dataset.streaming or chosen_rows < source.rows.count
    slack = 3 * math.sqrt(chosen_rows * share * (1 - share)) if sampled else 0
    return int(chosen_rows * share + slack)
