"""Rows of hub datasets, through `datasets` at a pinned commit."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from aligntune.config.data import Dataset
from aligntune.data.rows import BATCH, Row, Rows
from aligntune.errors import ConfigError, DataError, unknown

if TYPE_CHECKING:
    import datasets

T = TypeVar("T")


def read_hub(dataset: Dataset, commit: str) -> Rows:
    """The rows of `dataset.split` at that commit, each file with the digest that the hub lists.

    `subset` is a configuration of the dataset, or else a folder in its repository.
    """
    import datasets

    datasets.disable_progress_bars()
    where = _where(dataset, commit)
    builder = _asked(dataset, partial(datasets.load_dataset_builder, **where))
    files = builder.config.data_files or {}
    if files and dataset.split not in files:
        raise ConfigError(
            f"dataset {dataset.name!r}: " + unknown("split", dataset.split, map(str, files))
        )
    _verify(dataset, commit, [str(url) for urls in files.values() for url in urls])
    table = _asked(dataset, partial(datasets.load_dataset, split=dataset.split, **where))
    return Rows(tuple(table.column_names), len(table), partial(_rows_at, table))


def _where(dataset: Dataset, commit: str) -> dict[str, Any]:
    import datasets

    where: dict[str, Any] = {"path": dataset.name, "revision": commit}
    if dataset.subset is None:
        return where
    names = _asked(dataset, partial(datasets.get_dataset_config_names, **where))
    if dataset.subset in names:
        return where | {"name": dataset.subset}
    # A set without named configurations, such as Anthropic/hh-rlhf, has them as folders.
    try:
        inside = where | {"data_dir": dataset.subset}
        _asked(dataset, partial(datasets.load_dataset_builder, **inside))
    except ConfigError:
        message = unknown("subset", dataset.subset, names)
        raise ConfigError(f"dataset {dataset.name!r}: {message}") from None
    return inside


def _asked(dataset: Dataset, action: Callable[[], T]) -> T:
    """The result of `action`, tried again while the hub is busy; refusals in our words."""
    from datasets.exceptions import DatasetGenerationError, DatasetsError

    from aligntune.hub import retrying

    what = f"dataset {dataset.name!r}"
    try:
        return retrying(action, what)
    except DatasetGenerationError as error:
        cause = str(error.__cause__ or error).splitlines()[0][:200]
        raise DataError(
            f"{what}: its files cannot be read as one table: {cause}; choose another `subset` or "
            "`split`, or download the file and name it"
        ) from error
    except (ValueError, RuntimeError, DatasetsError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{what}: {reason}") from error


def _verify(dataset: Dataset, commit: str, urls: Sequence[str]) -> None:
    """Put the repository's files in the cache, where `datasets` takes them from, and check them."""
    from aligntune.hub import download_dataset

    prefix = f"hf://datasets/{dataset.name}@{commit}/"
    names = [url.removeprefix(prefix) for url in urls if url.startswith(prefix)]
    download_dataset(dataset.name, commit, names)


def _rows_at(table: "datasets.Dataset", indices: Sequence[int]) -> Iterator[Row]:
    for start in range(0, len(indices), BATCH):
        columns = table[[int(index) for index in indices[start : start + BATCH]]]
        yield from (
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        )
