"""Rows of hub datasets, through `datasets` at a pinned commit."""

import re
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from aligntune.config.data import Dataset
from aligntune.config.slices import ROWS_SEED
from aligntune.data.files import suffix
from aligntune.data.rows import BATCH, Row, Rows
from aligntune.errors import AlignTuneError, ConfigError, DataError, ServiceError, unknown

if TYPE_CHECKING:
    import datasets

T = TypeVar("T")


SHUFFLED = 10_000
"""Rows from which a streamed sample is drawn at a time."""


def read_hub(dataset: Dataset, commit: str) -> Rows:
    """The rows of `dataset.split` at that commit, each file with the digest that the hub lists.

    `subset` is a configuration of the dataset, or else a folder or a file in its repository.
    `split` may have slices, `train[:10%]+test`. With `streaming` the rows are a sample of what
    comes first, and files are not checked, as they are not loaded whole.
    """
    import datasets

    datasets.disable_progress_bars()
    builder = _builder(dataset, commit)
    files = builder.config.data_files or {}
    for name in _SLICE.sub("", dataset.split).split("+"):
        if files and name not in files:
            raise ConfigError(
                f"dataset {dataset.name!r}: " + unknown("split", name, map(str, files))
            )
    if dataset.streaming:
        return Rows.of(_asked(dataset, partial(_streamed, dataset, builder)))
    _verify(dataset, commit, [str(url) for urls in files.values() for url in urls])
    _asked(dataset, builder.download_and_prepare)
    try:
        table = _asked(dataset, partial(builder.as_dataset, split=dataset.split))
    except ValueError as error:
        raise ConfigError(f"dataset {dataset.name!r}: split {dataset.split!r}: {error}") from error
    return Rows(tuple(table.column_names), len(table), partial(_rows_at, table))


_SLICE = re.compile(r"\[[^\]]*\]")


def _streamed(dataset: Dataset, builder: "datasets.DatasetBuilder") -> list[Row]:
    rows = builder.as_streaming_dataset(split=dataset.split)
    rows = rows.shuffle(ROWS_SEED, buffer_size=SHUFFLED)
    if rows.features and _unopened(rows.features) != rows.features:
        rows = rows.cast(_unopened(rows.features))
    return list(rows.take(dataset.max_samples))


def _builder(dataset: Dataset, commit: str) -> "datasets.DatasetBuilder":
    build = partial(_built, dataset, commit)
    try:
        return _asked(dataset, partial(build, name=dataset.subset))
    except ConfigError:
        if dataset.subset is None:
            raise
    # A set without named configurations, such as Anthropic/hh-rlhf, has them as folders or files.
    inside = {"data_files" if suffix(dataset.subset) else "data_dir": dataset.subset}
    try:
        return _asked(dataset, partial(build, **inside))
    except ConfigError:
        _refuse_offline(dataset, commit)
        raise ConfigError(_unknown_subset(dataset, commit)) from None


def _refuse_offline(dataset: Dataset, commit: str) -> None:
    import datasets

    if datasets.config.HF_HUB_OFFLINE:
        raise ServiceError(
            f"dataset {dataset.name!r}: this subset of commit {commit[:12]} is not in the local "
            "cache and HF_HUB_OFFLINE is set; run once without it"
        )


def _unknown_subset(dataset: Dataset, commit: str) -> str:
    from datasets import get_dataset_config_names

    from aligntune.hub import download_dataset

    download_dataset(dataset.name, commit, ())  # raises if the hub is what could not be found
    names = _asked(dataset, partial(get_dataset_config_names, _place(dataset), revision=commit))
    return f"dataset {dataset.name!r}: " + unknown("subset", str(dataset.subset), names)


def _built(
    dataset: Dataset,
    commit: str,
    *,
    name: str | None = None,
    data_dir: str | None = None,
    data_files: str | None = None,
) -> "datasets.DatasetBuilder":
    import datasets

    builder = datasets.load_dataset_builder(
        _place(dataset), name=name, data_dir=data_dir, data_files=data_files, revision=commit
    )
    # Where the hub or a folder cannot be reached, `datasets` takes what it loaded last instead.
    if builder.hash == commit:
        return builder
    _refuse_offline(dataset, commit)
    if data_dir or data_files:
        raise ConfigError(f"dataset {dataset.name!r} has no {data_dir or data_files!r}")
    raise ConnectionError(f"commit {commit[:12]} could not be reached")


def _place(dataset: Dataset) -> str:
    # With the scheme, a directory of that name here is not taken for the dataset.
    return f"hf://datasets/{dataset.name}"


def _asked(dataset: Dataset, action: Callable[[], T]) -> T:
    """The result of `action`, tried again while the hub is busy; refusals in our words."""
    from datasets.exceptions import DatasetGenerationError, DatasetsError

    from aligntune.hub import retrying

    what = f"dataset {dataset.name!r}"
    try:
        return retrying(action, what)
    except AlignTuneError:
        raise
    except DatasetGenerationError as error:
        cause = str(error.__cause__ or error).splitlines()[0][:200]
        raise DataError(
            f"{what}: its files cannot be read as one table: {cause}; choose another `subset` or "
            "`split`, or download the file and name it"
        ) from error
    except (ValueError, RuntimeError, DatasetsError) as error:
        reason = " ".join(str(error).split())[:300]
        if names := re.search(r"Config name is missing.*available configs: \[([^]]*)", reason):
            raise ConfigError(f"{what} needs a `subset`, one of {names[1]}") from error
        raise ConfigError(f"{what}: {reason}") from error


def _verify(dataset: Dataset, commit: str, urls: Sequence[str]) -> None:
    """Put the repository's files in the cache, where `datasets` takes them from, and check them."""
    from aligntune.hub import download_dataset

    prefix = f"hf://datasets/{dataset.name}@{commit}/"
    if names := [url.removeprefix(prefix) for url in urls if url.startswith(prefix)]:
        download_dataset(dataset.name, commit, names)


def _unopened(features: "datasets.Features") -> "datasets.Features":
    """`features` whose images, sounds and the like stay files: what opens them is not installed,
    or they are not there, and only text is learned."""
    from datasets import Json

    plain = deepcopy(features)
    rest: list[Any] = [*plain.values()]
    while rest:
        one = rest.pop()
        if isinstance(one, dict | list | tuple):
            rest += one.values() if isinstance(one, dict) else one
        elif getattr(one, "feature", None) is not None:
            rest.append(one.feature)
        elif hasattr(one, "decode") and not isinstance(one, Json):
            one.decode = False
    return plain


def _rows_at(table: "datasets.Dataset", indices: Sequence[int]) -> Iterator[Row]:
    features, raw = _unopened(table.features), table.with_format("arrow")
    for start in range(0, len(indices), BATCH):
        columns = features.decode_batch(raw[list(indices[start : start + BATCH])].to_pydict())
        yield from (
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        )
