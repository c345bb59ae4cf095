"""What a config asks of this machine: files, packages and devices. Imports nothing heavy.

What only a hub or a server can say is left to the run.
"""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from aligntune.config.algo import ONLINE, TASK
from aligntune.config.data import Dataset, TaskType
from aligntune.config.naming import KeyPath
from aligntune.config.rewards import Reward
from aligntune.config.rules import Problem
from aligntune.config.run import RunConfig
from aligntune.config.train import Train
from aligntune.data import sources
from aligntune.errors import ConfigError
from aligntune.models.intake import check_config
from aligntune.models.precision import has_gpu
from aligntune.models.source import locate
from aligntune.paths import LONGEST, Paths, is_file, nearest, one_registry, tracking_uri
from aligntune.registered import parts
from aligntune.train.loggers import missing


def problems(config: RunConfig) -> list[Problem]:
    """Whatever would stop a run on this machine and can be seen at once."""
    return [
        *_datasets(config),
        *_models(config),
        *_rewards(config),
        *_evaluation(config),
        *_packages(config),
        *_tried(("logging", "output_dir"), partial(nearest, config.logging.output_dir)),
        *_registry(config),
    ]


def _registry(config: RunConfig) -> Iterator[Problem]:
    if config.registry.enabled:
        store = tracking_uri(Paths.of(config).root)
        yield from _tried(("registry", "enabled"), partial(one_registry, store))


def _datasets(config: RunConfig) -> Iterator[Problem]:
    lists: dict[KeyPath, tuple[tuple[Dataset, ...], TaskType | None]] = {
        ("datasets",): (config.datasets, TASK[config.algo]),
        ("evaluation", "datasets"): (config.evaluation.datasets, None),
    }
    if config.sft:
        lists["sft", "datasets"] = config.sft.datasets, TASK["sft"]
    if section := config.reward_model:
        lists["reward_model", "datasets"] = section.datasets, section.rows
    for at, (datasets, task) in lists.items():
        for index, dataset in enumerate(datasets):
            found = list(_tried((*at, index, "name"), partial(sources.check, dataset)))
            found += _tried((*at, index, "format"), partial(sources.check_format, dataset))
            key = "columns" if dataset.columns else "format" if dataset.format else "name"
            read = partial(sources.check_columns, dataset, task)
            yield from found or _tried((*at, index, key), read)


def _models(config: RunConfig) -> Iterator[Problem]:
    model = config.model
    key = "sft_path" if model.sft_path else "name_or_path"
    yield from _tried(("model", key), partial(_located, model.start, model.revision))
    if path := model.reward_path:
        judge = Reward(reward_type="model", model_name=path)
        yield from _judge(("model", "reward_path"), judge)
    if (section := config.reward_model) and section.name_or_path:
        base = partial(_located, section.name_or_path, section.revision)
        yield from _tried(("reward_model", "name_or_path"), base)
    template = model.chat_template
    if template and "{" not in template and not is_file(template):
        yield Problem(
            ("model", "chat_template"),
            f"{template[:LONGEST]!r} is neither a Jinja template (it has no '{{') nor an existing "
            "file",
        )
    if model.precision == "fp16" and not has_gpu():
        yield Problem(("model", "precision"), "fp16 needs a GPU; use bf16 or fp32 on a CPU")
    if model.quantization:
        yield from _needs(("model", "quantization"), "bitsandbytes", gpu=True)
    if kernel := _KERNELS.get(model.attn_implementation or ""):
        at: KeyPath = ("model", "attn_implementation")
        yield from _needs(at, "kernels" if find_spec("kernels") else kernel, gpu=True)
    if model.use_unsloth:
        yield from _needs(("model", "use_unsloth"), "unsloth", gpu=True)


_KERNELS = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_3"}
"""Attention -> its package; transformers takes `kernels` in its place."""


def _located(name: str, revision: str | None) -> None:
    source = locate(name, revision)
    if source.kind == "directory":
        check_config(Path(source.location))


def _rewards(config: RunConfig) -> Iterator[Problem]:
    if not config.rewards:
        return
    from aligntune.rewards import check as check_reward
    from aligntune.rewards import check_gate
    from aligntune.rewards.apart import check_apart

    for index, reward in enumerate(config.rewards):
        name = reward.model_name or ("the run's own" if reward.of_run else None)
        if ":" in reward.reward_type:
            judged = partial(check_apart, reward)
        else:
            judged = partial(check_reward, reward.reward_type, reward.params, name)
        yield from _tried(("rewards", index, "reward_type"), judged)
        yield from _tried(("rewards", index, "gate"), partial(check_gate, reward))
        if reward.model_name:
            yield from _judge(("rewards", index, "model_name"), reward)


def _evaluation(config: RunConfig) -> Iterator[Problem]:
    if tasks := config.evaluation.lm_eval:
        from aligntune.evaluate.harness import check

        yield from _tried(("evaluation", "lm_eval"), partial(check, tasks))


def _judge(at: KeyPath, reward: Reward) -> Iterator[Problem]:
    """The model of a reward, of which a registry knows more when the run starts."""
    from aligntune.rewards.sources import REGISTRY, check_model

    name = reward.model_name or ""
    if name.startswith(REGISTRY):
        yield from _tried(at, partial(parts, name))
        return
    found = list(_tried(at, partial(locate, name)))
    yield from found or _tried(at, partial(check_model, reward))


def _packages(config: RunConfig) -> Iterator[Problem]:
    key = "loggers" if config.logging.report_to is None else "report_to"
    for package in missing(config.logging.backends):
        yield from _needs(("logging", key), package)
    trains: dict[KeyPath, Train] = {("train",): config.train}
    if config.sft:
        trains["sft", "train"] = config.sft.train
    if config.reward_model:
        trains["reward_model", "train"] = config.reward_model.train
    for at, train in trains.items():
        if "8bit" in train.optimizer:
            yield from _needs((*at, "optimizer"), "bitsandbytes", gpu=True)
    if config.train.vllm and config.algo in ONLINE:
        yield from _needs(("train", "vllm"), "vllm", gpu=True)


def _needs(at: KeyPath, package: str, *, gpu: bool = False) -> Iterator[Problem]:
    if find_spec(package) is None:
        yield Problem(at, f"needs the package {package}; `pip install {package}`, or change it")
    elif gpu and not has_gpu():
        yield Problem(at, f"{package} needs a GPU, and there is none here; change it")


def _tried(at: KeyPath, action: Callable[[], object]) -> Iterator[Problem]:
    try:
        action()
    except ConfigError as error:
        yield Problem(at, str(error))
