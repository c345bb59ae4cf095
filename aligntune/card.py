"""The model card: README.md with the metadata that the hub reads and the facts of a run."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PureWindowsPath

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,49}")
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,49}")
LOCAL_SUFFIXES = {".json", ".jsonl", ".csv", ".tsv", ".parquet", ".gguf", ".gz", ".txt"}
COMPARISON = ("metric", "against", "difference", "confidence interval", "p", "verdict")
LONGEST = 300
"""Characters of one value."""
ABSOLUTE = re.compile(
    r"(?<![\w.~/\\:-])(?:~|[A-Za-z]:)?[/\\](?![/\\])[^\s\"'`,;|()\[\]{}<>]*"
    r"|(?<!models)(?<!runs):(?=/[^/])[^\s\"'`,;|()\[\]{}<>]*"
)
"""A path from the root, home or a drive within a text; `models:/x` and `https://` stay."""
LOOK_ALIKES = str.maketrans({"`": "'", "<": "\u2039", ">": "\u203a", "\\": "\u2216"})


@dataclass(frozen=True)
class Compared:
    """This model against an earlier one on the same prompts."""

    metric: str
    against: str
    difference: float
    low: float
    high: float
    p_value: float
    verdict: str


@dataclass(frozen=True)
class CardFacts:
    """What a card says. Every text may come from a file or a server, so none of it is trusted."""

    title: str
    base_model: str
    base_fingerprint: str
    algorithm: str
    created: str
    about: str = "A language model post-trained with `aligntune`."
    """Markdown of ours, and the only text that is taken as such."""
    adapter: bool = False
    """Whether it is one for the base model, and not a model."""
    license: str | None = None
    mlflow_run: str | None = None
    signer: str | None = None
    """The key that signed the digests of the files."""
    datasets: Sequence[tuple[str, int, str]] = ()
    """Name, rows, digest."""
    metrics: Sequence[tuple[str, float, float | None, float | None]] = ()
    """Name, value, and the lower and upper end of its confidence interval."""
    comparisons: Sequence[Compared] = ()
    decision: str | None = None
    """What was decided about it as a candidate, and why."""
    lineage: Sequence[tuple[str, str]] = ()
    """Stage and key, in the order in which they ran."""
    hyperparameters: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def model_card(facts: CardFacts) -> str:
    """The text of README.md. Names and values are code spans, so nothing in them is markup."""
    import yaml

    front = yaml.safe_dump(_metadata(facts), sort_keys=False, allow_unicode=True)
    about = [
        ("Algorithm", facts.algorithm),
        ("Base model", facts.base_model),
        ("Base model digest", facts.base_fingerprint),
        ("License", facts.license),
        ("Created", facts.created),
        ("MLflow run", facts.mlflow_run),
        ("Decision", facts.decision),
        ("Signed by key", facts.signer),
    ]
    sections = [
        f"# {code(facts.title)}",
        facts.about,
        _table(("", ""), ((name, code(value)) for name, value in about if value)),
        _section("Training data", ("dataset", "rows", "digest"), _data(facts)),
        _section("Evaluation", ("metric", "value", "confidence interval"), _results(facts)),
        _section("Comparison", COMPARISON, _comparisons(facts)),
        _section("Hyperparameters", ("name", "value"), _pairs(facts.hyperparameters.items())),
        _section("Lineage", ("stage", "key"), _pairs(facts.lineage)),
        _section("Versions", ("package", "version"), _pairs(facts.versions.items())),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def code(value: object) -> str:
    """A value as one Markdown code span that also fits a table cell.

    Backticks, backslashes and angle brackets become look-alikes, so that not even a renderer that
    disregards code spans sees a tag; of absolute paths the last part stays.
    """
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    text = "".join(c if c.isprintable() else " " for c in without_places(text))
    text = " ".join(text.split()).translate(LOOK_ALIKES)
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    escaped = text.replace("|", r"\|")
    return f"`{escaped or '-'}`"


def without_places(text: str) -> str:
    text = re.sub(r"file:/+", "/", text)
    if re.match(r"[/~\\]|[A-Za-z]:[/\\]", text):
        return PureWindowsPath(text).name
    return ABSOLUTE.sub(_last_part, text)


def _last_part(match: "re.Match[str]") -> str:
    colon = ":" if match[0].startswith(":") else ""
    return colon + PureWindowsPath(match[0].removeprefix(":")).name


def _metadata(facts: CardFacts) -> dict[str, object]:
    tags = ["aligntune", *([facts.algorithm] if TAG.fullmatch(facts.algorithm) else [])]
    datasets = sorted({name for name, _, _ in facts.datasets if is_hub_id(name)})
    library = "peft" if facts.adapter else "transformers"
    metadata: dict[str, object] = {"library_name": library, "tags": tags}
    if facts.license and LICENSE.fullmatch(facts.license):
        metadata["license"] = facts.license
    if is_hub_id(facts.base_model):
        metadata["base_model"] = facts.base_model
        if facts.adapter:
            metadata["base_model_relation"] = "adapter"
    if datasets:
        metadata["datasets"] = datasets
    return metadata


def is_hub_id(name: str) -> bool:
    """Whether `owner/name` can be on the hub, and is neither a file name nor a local path."""
    return (
        HUB_ID.fullmatch(name) is not None
        and len(name) <= 96
        and not {"--", ".."} & {name[i : i + 2] for i in range(len(name))}
        and PurePath(name).suffix not in LOCAL_SUFFIXES
        and not Path(name).exists()
    )


def _data(facts: CardFacts) -> Iterable[tuple[str, ...]]:
    return ((code(name), f"{rows:,}", code(digest)) for name, rows, digest in facts.datasets)


def _results(facts: CardFacts) -> Iterable[tuple[str, ...]]:
    for name, value, low, high in facts.metrics:
        interval = "-" if low is None or high is None else f"{_number(low)} to {_number(high)}"
        yield code(name), _number(value), interval


def _comparisons(facts: CardFacts) -> Iterable[tuple[str, ...]]:
    for row in facts.comparisons:
        interval = f"{_number(row.low)} to {_number(row.high)}"
        change = f"{row.difference:+.4g}" if math.isfinite(row.difference) else "not finite"
        numbers = (change, interval, f"{row.p_value:.3f}")
        yield code(row.metric), code(row.against), *numbers, code(row.verdict)


def _pairs(items: Iterable[tuple[str, object]]) -> Iterable[tuple[str, ...]]:
    return ((code(name), code(value)) for name, value in items)


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "not finite"


def _section(title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    table = _table(columns, rows)
    return f"## {title}\n\n{table}" if table else ""


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    head = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    return "\n".join(head + lines) if lines else ""
