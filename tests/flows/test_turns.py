"""The lock of a deployment's runs, between two that start at once."""

import asyncio

from filelock import FileLock


def test_one_that_only_looks_is_waited_for_and_one_that_goes_on_is_not(tmp_path):
    from flows.overlap import LOOK, _Holder, _locked, _write

    record, mine = tmp_path / "record.json", FileLock(tmp_path / "lock")
    other = FileLock(tmp_path / "lock")

    async def both(*, ended):
        _write(record, _Holder("1", "first", "here", ended=ended))
        other.acquire()
        asyncio.get_running_loop().call_later(2 * LOOK, other.release)
        return await _locked(mine, record)

    assert not asyncio.run(both(ended=False))
    other.release()
    assert asyncio.run(both(ended=True))
    assert mine.is_locked
