"""Tasks of EleutherAI's lm-evaluation-harness as metrics, with a score per document.

lm_eval.json   metric -> the score of each of its documents, which a later evaluation is paired with
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligntune.config.evaluation import LmEval
from aligntune.errors import ConfigError, DataError, unknown

if TYPE_CHECKING:
    from aligntune.evaluate.compare import Column, Measured, Resampling
    from aligntune.evaluate.types import Metric, Subject

SCORES = "lm_eval.json"
PREFIX = "lm_eval"


def check(section: LmEval) -> None:
    """Raise ConfigError for what the tasks lack on this machine."""
    if find_spec("lm_eval") is None:
        raise ConfigError(
            "needs the lm-evaluation-harness; `pip install 'aligntune-pipeline[lm-eval]'`, or "
            "remove it"
        )
    if section.include_path and not Path(os.path.expanduser(section.include_path)).is_dir():
        raise ConfigError(
            f"include_path {section.include_path!r} is not a directory; name one with task files"
        )


def fingerprint(section: LmEval) -> str:
    """The harness's version, and the digests of the task files that are not its own.

    Raises:
        ConfigError: as `check`.
    """
    from aligntune.digest import sha256

    check(section)
    files = sorted(Path(os.path.expanduser(section.include_path or "")).rglob("*"))
    own = [f"{file.name}:{sha256(file)}" for file in files if file.suffix in (".yaml", ".py")]
    return " ".join([f"lm-eval {version('lm-eval')}", *(own if section.include_path else ())])


def measured(
    section: LmEval, subject: "Subject", out: Path, earlier: Mapping[str, Path], how: "Resampling"
) -> tuple[dict[str, "Metric"], dict[str, "Measured"]]:
    """Each metric of each task, and what it is for the model and against earlier evaluations.

    Documents that two models answered are paired by their number.

    Raises:
        ConfigError: a task is not known, or the harness is not installed.
        DataError: a task cannot be read or gives no score.
    """
    from aligntune.artifacts import write_atomic
    from aligntune.evaluate.compare import measure

    check(section)
    found, rising = _scores(section, subject, how.seed)
    write_atomic(out / SCORES, json.dumps(found) + "\n")
    baselines = {
        label: json.loads((path / SCORES).read_text(encoding="utf-8"))
        for label, path in earlier.items()
        if (path / SCORES).exists()
    }
    metrics = {name: _metric(scores, rising[name]) for name, scores in found.items()}
    results = {}
    for name, scores in found.items():
        numbers = range(len(scores))
        same = {k: one for k, one in baselines.items() if len(one.get(name, ())) == len(scores)}
        results[name] = measure(name, metrics[name], scores, len(scores), numbers, same, how)
    return metrics, results


def _scores(
    section: LmEval, subject: "Subject", seed: int
) -> tuple[dict[str, "Column"], dict[str, bool]]:
    """(metric -> score per document, metric -> whether higher is better)."""
    result = _evaluated(section, subject, seed)
    found: dict[str, Column] = {}
    rising: dict[str, bool] = {}
    for task, samples in result["samples"].items():
        directions = result["higher_is_better"].get(task, {})
        for name, metric, scores in _columns(task, samples):
            found[name], rising[name] = scores, directions.get(metric) is not False
    if not found:
        raise DataError(
            f"evaluation.lm_eval: {', '.join(section.tasks)} give no score per document; choose "
            "other tasks"
        )
    return found, rising


def _evaluated(section: LmEval, subject: "Subject", seed: int) -> Mapping[str, Any]:
    """What the harness says of the tasks, of each document too."""
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from aligntune.evaluate.forward import HALF, inference

    include = str(Path(os.path.expanduser(section.include_path))) if section.include_path else None
    tasks = TaskManager(include_path=include)
    for name in section.tasks:
        if name not in tasks.all_tasks:
            raise ConfigError(f"evaluation.lm_eval: {unknown('task', name, tasks.all_tasks)}")
    chat = section.apply_chat_template and subject.tokenizer.chat_template is not None
    model = HFLM(
        pretrained=subject.model,
        tokenizer=subject.tokenizer,
        batch_size=subject.batch_size,
        max_length=subject.max_length,
        # It turns autocast off around each pass, unless it is told of it.
        mixed_precision_dtype=HALF.get(subject.precision),
        softmax_dtype=torch.float32,
    )
    with inference(subject.model, subject.precision):
        try:
            result: Mapping[str, Any] = simple_evaluate(
                model=model,
                tasks=list(section.tasks),
                task_manager=tasks,
                num_fewshot=section.num_fewshot,
                limit=section.limit,
                apply_chat_template=chat,
                bootstrap_iters=0,  # intervals are ours
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = (str(error).splitlines() or ["no reason"])[0]
            raise DataError(
                f"evaluation.lm_eval: the harness could not run {', '.join(section.tasks)} "
                f"({type(error).__name__}: {reason}); correct or remove the task"
            ) from error
    return result


def _columns(
    task: str, samples: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str, list[float | None]]]:
    """(our name, the harness's, score per document in order) of each metric of one task."""
    kinds = {(one["filter"], metric): None for one in samples for metric in one["metrics"]}
    for filter_, metric in kinds:
        chosen = sorted((s for s in samples if s["filter"] == filter_), key=lambda s: s["doc_id"])
        values = [sample.get(metric) for sample in chosen]
        # Others are not means over documents, such as a corpus's BLEU.
        if all(isinstance(value, Real) for value in values):
            name = f"{PREFIX}/{task}/{metric}"
            shown = name if filter_ == "none" else f"{name}/{filter_}"
            yield shown, metric, [float(value) for value in values]  # type: ignore[arg-type]


def _metric(scores: "Column", rising: bool) -> "Metric":
    from aligntune.evaluate.types import Metric

    def nothing(*_: Any) -> list[float | None]:
        raise AssertionError("the harness has scored it")

    share = all(score is not None and 0 <= score <= 1 for score in scores)
    return Metric(nothing, (), higher_is_better=rising, unit="%" if share else "")
