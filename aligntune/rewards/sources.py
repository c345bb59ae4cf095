"""What a reward is made of besides its settings: a model, or code that is not ours."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from aligntune.config.rewards import Reward
from aligntune.digest import sha256
from aligntune.errors import ConfigError
from aligntune.models.source import fingerprint as model_fingerprint
from aligntune.models.source import locate

_COMMIT = "commit:"


def fingerprint(reward: Reward) -> str:
    """What identifies the reward's model and code; empty where it has neither.

    Raises:
        ConfigError: the model or the module does not exist. May ask the hub.
    """
    parts = [_code(reward.reward_type)] if ":" in reward.reward_type else []
    if reward.model_name:
        source = locate(reward.model_name)
        if source.kind == "gguf":
            raise ConfigError(
                f"reward model {reward.model_name!r} is a GGUF file, which has no score; name a "
                "hub id or a directory"
            )
        parts.append(model_fingerprint(source))
    return " ".join(parts)


def local(reward: Reward, pinned: str, into: Path) -> Reward:
    """`reward` with the path of its model; one of the hub is loaded, at the pinned commit, into the
    directory `into`."""
    if not reward.model_name:
        return reward
    commits = [part for part in pinned.split() if part.startswith(_COMMIT)]
    if not commits:
        return reward.model_copy(update={"model_name": locate(reward.model_name).location})
    from aligntune.hub import download_model

    commit = commits[0].removeprefix(_COMMIT)
    download_model(reward.model_name, commit, into)
    return reward.model_copy(update={"model_name": str(into)})


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
