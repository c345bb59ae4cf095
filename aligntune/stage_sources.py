"""What stages read that lies outside the artifacts, as digests and commits."""

import os
from pathlib import Path

from aligntune.config.slices import DataSlice, EvaluateSlice, ModelSlice, TrainSlice
from aligntune.digest import sha256
from aligntune.errors import ConfigError
from aligntune.paths import LONGEST, is_file, tracking_uri


def model_sources(config: ModelSlice, _: Path, *, weights: bool = True) -> dict[str, str]:
    from aligntune.models.source import fingerprint, locate

    source = locate(config.name_or_path, config.revision)
    sources = {"model": fingerprint(source, weights=weights)}
    if config.chat_template and "{" not in config.chat_template:
        if not is_file(config.chat_template):
            raise ConfigError(
                f"model.chat_template {config.chat_template[:LONGEST]!r} is neither a Jinja "
                "template (it has no '{') nor an existing file"
            )
        file = Path(os.path.expanduser(config.chat_template))
        sources["chat_template"] = f"sha256:{sha256(file)}"
    return sources


def data_sources(config: DataSlice, _: Path) -> dict[str, str]:
    from aligntune.data.sources import fingerprint

    return {f"datasets[{i}]": fingerprint(dataset) for i, dataset in enumerate(config.datasets)}


def reward_sources(config: TrainSlice | EvaluateSlice, root: Path) -> dict[str, str]:
    """What the rewards read besides their settings: models, and code that is not ours."""
    from aligntune.rewards.sources import fingerprint

    uri = tracking_uri(root)
    found = {f"rewards[{i}]": fingerprint(reward, uri) for i, reward in enumerate(config.rewards)}
    return {name: digest for name, digest in found.items() if digest}


def evaluate_sources(config: EvaluateSlice, root: Path) -> dict[str, str]:
    from aligntune.evaluate.harness import fingerprint

    tasks = {"lm_eval": fingerprint(config.lm_eval)} if config.lm_eval else {}
    return reward_sources(config, root) | tasks


def train_sources(config: TrainSlice, root: Path) -> dict[str, str]:
    """What a trainer reads besides its data: rewards, and files that its settings name."""
    bolt, gbmpo = config.train.bolt, config.train.gbmpo
    files = {
        "bolt.warm_start": bolt.warm_start if bolt else None,
        "gbmpo.mirror_path": gbmpo.mirror_path if gbmpo else None,
    }
    found = reward_sources(config, root)
    for name, given in files.items():
        if given is None:
            continue
        file = Path(os.path.expanduser(given))
        if not file.is_file():
            raise ConfigError(f"train.{name}: there is no file {given!r}")
        found[name] = f"sha256:{sha256(file)}"
    return found
