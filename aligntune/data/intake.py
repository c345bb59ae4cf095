"""From a source to the pool: every row is kept, or dropped with a reason."""

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import replace

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
        self._rows = array("Q")
        self.accounts: list[Account] = []
        self.optional: set[str] = set()
        """What `columns_in` says of the rows in the pool."""

    def take(self, source: Source, work: Work, tick: Callable[[int], None]) -> None:
        """Add the source's rows to the pool; `tick` is told how many were looked at.

        Raises:
            DataError: more of its rows are invalid or too long than may be, or none is left.
        """
        indices = chosen(source)
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
        after = bisect_right(self.accounts, number, key=lambda account: account.first)
        return self.accounts[after - 1], self._rows[number]

    def _add(self, account: Account, made: Made) -> None:
        for index, reason, row in made.invalid:
            self._ledger.drop(account, index, "invalid", reason, row)
        good = made.good
        kept = [at for at in range(len(good)) if self._stays(account, made, at)]
        lines, tokens, keys = good.lines, good.tokens, good.keys
        lengths, optional = good.lengths, made.optional
        if len(kept) < len(good):
            lines, tokens = [lines[at] for at in kept], [tokens[at] for at in kept]
            keys, lengths = [keys[at] for at in kept], [lengths[at] for at in kept]
            optional = optional and columns_in(map(decode, lines))
        self._pool.extend(lines, tokens, keys)
        account.lengths.extend(lengths)
        self.optional |= optional

    def _stays(self, account: Account, made: Made, at: int) -> bool:
        """Whether the good row at that place is added to the pool."""
        good = made.good
        fit, same, number = good.fits[at], good.same[at], len(self._rows)
        if fit == "lost" or (fit == "cut" and self._spec.cleaning.too_long == "drop"):
            self._drop_long(account, good, at)
            return False
        if (earlier := self._seen.get(same)) is not None:
            self._drop_like(account, good, at, earlier, exact=True)
            return False
        if self._similar:
            signature = made.signatures[at] if made.signatures else None
            alike = self._similar.first(signature)
            if alike is not None:
                self._drop_like(account, good, at, alike, exact=False)
                return False
            self._similar.add(number, signature)
        if same:
            self._seen[same] = number
        self._rows.append(good.rows[at])
        account.truncated += fit == "cut"
        return True

    def _drop_long(self, account: Account, good: Good, at: int) -> None:
        limit = self._spec.max_length
        why = "no answer is left within" if good.fits[at] == "lost" else "more than"
        reason = f"{good.lengths[at]} tokens; {why} max_length {limit}"
        self._ledger.drop(account, good.rows[at], "too_long", reason, decode(good.lines[at]))

    def _drop_like(
        self, account: Account, good: Good, at: int, earlier: int, *, exact: bool
    ) -> None:
        other, index = self.origin(earlier)
        row = decode(good.lines[at])
        where = f"{other.source.rows.place(index)} of {other.source.name!r}"
        if exact:
            reason = f"the same {'prompt' if self._prompts(account) else 'row'} as {where}"
            self._ledger.drop(account, good.rows[at], "duplicates", reason, row)
        else:
            self._ledger.drop(account, good.rows[at], "near_duplicates", f"much like {where}", row)

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
