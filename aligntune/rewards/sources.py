"""What a reward is made of besides its settings: a model, or code that is not ours."""

import hashlib
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aligntune.aside import promptly
from aligntune.config.rewards import Reward
from aligntune.digest import sha256
from aligntune.errors import ConfigError
from aligntune.models import intake
from aligntune.models.source import fingerprint as model_fingerprint
from aligntune.models.source import locate
from aligntune.rewards.catalogue import REWARDS

REGISTRY = "models:/"
_COMMIT = "commit:"
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json")


def fingerprint(reward: Reward, uri: str) -> str:
    """What identifies the reward's model and code; empty where it has neither.

    Raises:
        ConfigError: the model or the module does not exist. May ask the hub, or the registry at
            `uri`.
    """
    parts = [_code(reward.reward_type)] if ":" in reward.reward_type else []
    if reward.model_name and reward.model_name.startswith(REGISTRY):
        from aligntune.registered import registered

        found = promptly(partial(registered, reward.model_name, uri), "MLflow is asked")
        parts.append(f"registered:{found.name}/{found.version}:{found.digest}")
    elif reward.model_name:
        source = locate(reward.model_name)
        if source.kind == "gguf":
            raise ConfigError(
                f"reward model {reward.model_name!r} is a GGUF file, which has no score; name a "
                "hub id or a directory"
            )
        parts.append(model_fingerprint(source))
    return " ".join(parts)


def local(reward: Reward, pinned: str, into: Path, *, uri: str) -> Reward:
    """`reward` with the path of its model; one of the hub is loaded, at the pinned commit, into the
    directory `into`, and so is the pinned version of one of the registry at `uri`."""
    if not reward.model_name:
        return reward
    if reward.model_name.startswith(REGISTRY):
        from aligntune.registered import download

        version = next(part for part in pinned.split() if part.startswith("registered:"))
        name = f"{REGISTRY}{version.split(':')[1]}"
        promptly(partial(download, name, uri, into), f"{name} is fetched")
        return reward.model_copy(update={"model_name": str(into)})
    commits = [part for part in pinned.split() if part.startswith(_COMMIT)]
    if not commits:
        return reward.model_copy(update={"model_name": locate(reward.model_name).location})
    from aligntune.hub import download_model

    commit = commits[0].removeprefix(_COMMIT)
    download_model(reward.model_name, commit, into)
    return reward.model_copy(update={"model_name": str(into)})


def check_model(reward: Reward) -> None:
    """Raise ConfigError where the directory that `reward` names cannot judge: no model with a head
    (embeddings need none), several outputs and no label, no tokenizer, or, for one that scores, no
    chat template. Loads nothing.
    """
    name = reward.model_name
    if name is None or not Path(name).is_dir():
        return
    folder = Path(name)
    intake.check(folder, trust_remote_code=False)
    config = intake.read_json(folder / "config.json")
    architecture = str((config.get("architectures") or ["?"])[0])
    known = REWARDS.get(reward.reward_type)
    embeds = known is not None and known.embeds
    if not embeds and not architecture.endswith("ForSequenceClassification"):
        raise ConfigError(
            f"reward model {name!r} is a {architecture}, which has no score head; name a "
            "sequence classification model, or train one with a `reward_model` section"
        )
    if not any((folder / file).is_file() for file in _TOKENIZERS):
        raise ConfigError(f"reward model {name!r} has no tokenizer; save it in the same directory")
    if embeds:
        return
    labels = _labels(config)
    label = reward.params.get("label", "")
    if len(labels) == 1:
        _check_template(folder)
    elif reward.reward_type == "model" and label.lower() not in labels:
        raise ConfigError(
            f"reward model {name!r} has the labels {', '.join(labels)}; say which one is rewarded "
            "with `params: {label: ...}`"
        )


def _labels(config: dict[str, Any]) -> list[str]:
    """In small letters; transformers takes two where a config says nothing."""
    named = config.get("id2label")
    if isinstance(named, dict):
        return [str(text).lower() for text in named.values()]
    return [f"label_{i}" for i in range(int(config.get("num_labels", 2)))]


def _check_template(folder: Path) -> None:
    settings = folder / "tokenizer_config.json"
    inside = settings.is_file() and intake.read_json(settings).get("chat_template")
    if not inside and not any((folder / name).is_file() for name in _TEMPLATES):
        raise ConfigError(
            f"reward model {str(folder)!r} has no chat template, so nothing says how to show it a "
            "conversation; put the one it was trained with beside it, as chat_template.jinja"
        )


def _code(name: str) -> str:
    module = name.partition(":")[0]
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise ConfigError(f"reward {name!r}: there is no module {module!r} on the Python path")
    digest = sha256(Path(spec.origin))
    return f"code:{hashlib.sha256(f'{name} {digest}'.encode()).hexdigest()}"
