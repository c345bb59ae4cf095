"""What of a model directory is used, and whether it may be loaded at all.

A model folder is somebody else's program as much as data: pickled weights run code when they are
loaded, `auto_map` and attention kernels name code to import, and a path in a JSON file reads
whatever file it points to. All of that is refused before transformers sees the folder.
"""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PureWindowsPath
from typing import Any

from aligntune.errors import ConfigError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TEMPLATES = "additional_chat_templates"
PICKLED = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack"}
USED = {".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm", ".bpe", ".codes", ".py"}
UNUSED = {"adapter_config.json", "trainer_state.json", "sbom.cdx.json"}
"""An adapter beside whole weights would make transformers fetch the adapter's base model; a bill of
materials is that of the model, and not of what is made from it."""
LEGAL = ("LICENSE", "LICENCE", "NOTICE")
VOCABULARIES = {"vocab.json", "added_tokens.json", "tokenizer.json"}
"""JSON whose keys are tokens, where a key has no meaning beyond that."""
INTERNAL = {"_attn_implementation_internal", "_experts_implementation_internal"}
KERNELS = {"_attn_implementation", "attn_implementation", "experts_implementation"}


def used_files(directory: Path, *, weights: bool = True) -> list[str]:
    """Relative names, sorted, of the files that loading the model and its tokenizer can read;
    without `weights` only its tokenizer."""
    names = {path.name for path in directory.iterdir() if path.is_file()}
    used = {name for name in names if Path(name).suffix in USED and name not in UNUSED}
    used |= {name for name in names if name.startswith(LEGAL)}
    used |= {f"{TEMPLATES}/{path.name}" for path in (directory / TEMPLATES).glob("*.jinja")}
    found = {name for name in used if name != INDEX}
    return sorted(found | set(_weights(directory)) if weights else found)


def check(directory: Path, *, trust_remote_code: bool, weights: bool = True) -> list[str]:
    """The files of a model directory to use, all of which passed; the first that does not raises.

    `trust_remote_code` allows `*.py` and `auto_map`, nothing else. Without `weights` it is only a
    tokenizer that is wanted.
    """
    if weights:
        _check_is_model(directory)
    names = used_files(directory, weights=weights)
    for name in names:
        path = directory / name
        _check_link(path, directory)
        if path.suffix == ".safetensors":
            _check_weights(path)
            continue
        if path.suffix == ".py" and not trust_remote_code:
            raise _needs_trust(path, "is Python code")
        if path.suffix == ".json" and name != INDEX:
            _check_json(path, trust_remote_code)
    return names


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON ({error}); get the file again") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no JSON object; get the file again")
    return content


def _weights(directory: Path) -> list[str]:
    """The names of the safetensors that transformers reads, with their index."""
    if (directory / WEIGHTS).is_file():
        return [WEIGHTS]
    if not (directory / INDEX).is_file():
        return []
    shards = read_json(directory / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ConfigError(f"{directory / INDEX} lists no weights; get the file again")
    for shard in shards.values():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or _leaves(shard):
            raise ConfigError(
                f"{directory / INDEX}: weight_map names {shard!r}, which is no safetensors file of "
                "this directory; do not use this model"
            )
        if not (directory / shard).is_file():
            raise ConfigError(f"{directory} lacks {shard!r}, which {INDEX} names; get the file")
    return [INDEX, *sorted(set(shards.values()))]


def check_config(directory: Path) -> None:
    """ConfigError for a directory without a model's config."""
    if (directory / "config.json").is_file():
        return
    if (directory / "adapter_config.json").is_file():
        raise ConfigError(
            f"{directory} is a LoRA adapter without its base model; merge it into the base and "
            "name the merged model"
        )
    inner = directory / "model"
    hint = f"did you mean {inner}?" if (inner / "config.json").is_file() else "it is no model"
    raise ConfigError(f"{directory} has no config.json; {hint}")


def _check_is_model(directory: Path) -> None:
    check_config(directory)
    if _weights(directory):
        return
    others = [path for path in directory.iterdir() if path.suffix in PICKLED]
    if not others:
        raise ConfigError(f"{directory} has no {WEIGHTS}; save the model as safetensors there")
    largest = max(others, key=lambda path: path.stat().st_size)
    raise ConfigError(
        f"{largest} can run code when it is loaded, and there are no safetensors beside it; "
        "convert to safetensors with `save_pretrained` where you trust the file"
    )


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise ConfigError(
            f"{path} is not a whole safetensors file ({error}); get the file again"
        ) from None


def _check_link(path: Path, directory: Path) -> None:
    """A link in a cloned model could put any file of this machine into what is pushed later."""
    root, target = directory.resolve(), path.resolve()
    homes = {root}
    if root.parent.name == "snapshots":
        homes.add(root.parent.parent / "blobs")  # how the hub's cache stores a snapshot's files
    if homes.isdisjoint(target.parents):
        raise ConfigError(f"{path} is a link to {target}, outside the model; copy the file there")


def _check_json(path: Path, trust_remote_code: bool) -> None:
    content = read_json(path)
    if path.name in VOCABULARIES:
        return
    objects = (node for node in _nodes(content) if isinstance(node, dict))
    for key, value in chain.from_iterable(node.items() for node in objects):
        if key == "auto_map" and not trust_remote_code:
            raise _needs_trust(path, "key 'auto_map' names Python code")
        if key in INTERNAL or (key in KERNELS and "/" in str(value)):
            raise ConfigError(f"{path}: key {key!r} names code to load, {value!r}; remove the key")
        if key.endswith(("_file", "_files")) or key == "transformers_weights":
            for name in _nodes(value):
                if isinstance(name, str) and _leaves(name):
                    raise ConfigError(
                        f"{path}: key {key!r} points out of the model, to {name!r}; remove the key"
                    )


def _needs_trust(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{path}: {what}; read it, then set `model.trust_remote_code: true` or remove it"
    )


def _nodes(value: Any) -> Iterator[Any]:
    """`value` and everything in it. Iterative, so that deep nesting cannot exhaust the stack."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, dict):
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _leaves(name: str) -> bool:
    """Whether a file name from a JSON file is more than a name below its directory.

    Read the Windows way, which takes both slashes and drive letters for what they are.
    """
    path = PureWindowsPath(name)
    return bool(path.anchor) or ".." in path.parts
