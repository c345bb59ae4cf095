"""Any source of a model as one standalone directory: safetensors, tokenizer, chat template."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from aligntune.artifacts import find_named, linked
from aligntune.errors import AlignTuneError, ConfigError, ResourceError
from aligntune.models import intake, template
from aligntune.models.load import load_tokenizer, reading
from aligntune.models.save import save_tokenizer, write_json
from aligntune.models.source import ModelSource

GENERATION = "generation_config.json"
SAMPLING = {"temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"}


def prepare(
    source: ModelSource, out: Path, *, chat_template: str | None, trust_remote_code: bool
) -> dict[str, Any]:
    """What is worth remembering of the model that is now complete in `out`, whatever was there.

    Weights are taken as they are and not loaded, except that a GGUF file is converted to fp32.
    """
    with _filling(source, out):
        _collect(source, out, trust_remote_code, weights=True)
        return _complete(out, source.location, chat_template, trust_remote_code)


def prepare_tokenizer(
    source: ModelSource, out: Path, *, chat_template: str | None, trust_remote_code: bool
) -> dict[str, Any]:
    """The same for the model's tokenizer alone, which needs none of the weights."""
    with _filling(source, out):
        _collect(source, out, trust_remote_code, weights=False)
        tokenizer, origin = _tokenizer_of(out, source.location, chat_template, trust_remote_code)
    return {"vocab_size": len(tokenizer)} | _template_facts(tokenizer, origin)


@contextmanager
def _filling(source: ModelSource, out: Path) -> Iterator[None]:
    """An empty directory, and what a disk does to it as an error of ours."""
    shutil.rmtree(out, ignore_errors=True)
    try:
        out.mkdir(parents=True)
        yield
    except AlignTuneError:
        raise
    except (OSError, SafetensorError) as error:
        raise ResourceError(
            f"model {source.location!r} could not be copied to {out}: {error}; make room or "
            "correct the permissions, then run again"
        ) from error


def _collect(source: ModelSource, out: Path, trust_remote_code: bool, *, weights: bool) -> None:
    """Put the files that are used into `out`."""
    if source.kind == "gguf":
        from aligntune.models import gguf

        convert = gguf.convert if weights else gguf.convert_tokenizer
        convert(Path(source.location), out)
    elif source.kind == "directory":
        _take(Path(source.location), out, trust_remote_code, weights=weights, move_weights=False)
    else:
        from aligntune.hub import download_model

        # A stable name, so that an interrupted download goes on where it stopped.
        download = out.with_name(f"{out.name}.download")
        into = download_model(
            source.location,
            source.revision,
            download,
            allow_code=trust_remote_code,
            weights=weights,
        )
        _take(into, out, trust_remote_code, weights=weights, move_weights=True)
        shutil.rmtree(download, ignore_errors=True)


def _take(
    directory: Path, out: Path, trust_remote_code: bool, *, weights: bool, move_weights: bool
) -> None:
    """Fill `out` with the files of a directory that passes the checks.

    Copies, and no hard links, as whoever rewrites the original in place would change a finished
    artifact. Only weights that nothing writes to are not copied: a download's are moved, and those
    of a finished artifact are linked.
    """
    made = directory.resolve().parent
    finished = find_named(made.parent, made.name)
    for name in intake.check(directory, trust_remote_code=trust_remote_code, weights=weights):
        (out / name).parent.mkdir(exist_ok=True)
        if move_weights and name.endswith(".safetensors"):
            (directory / name).replace(out / name)
        elif finished and name.endswith(".safetensors"):
            linked(directory / name, out / name)
        else:
            shutil.copyfile(directory / name, out / name)


def _complete(
    out: Path, name: str, chat_template: str | None, trust_remote_code: bool
) -> dict[str, Any]:
    """Add what the files in `out` lack, check that they fit together, and describe the result."""
    config, parameters = _architecture(out, name, trust_remote_code)
    tokenizer, origin = _tokenizer_of(out, name, chat_template, trust_remote_code)
    text_config = config.get_text_config()
    _check_ids(tokenizer, text_config.vocab_size, name)
    _write_generation_config(out, config, tokenizer)
    return {
        "parameters": parameters,
        "model_type": config.model_type,
        "vocab_size": text_config.vocab_size,
        "context_length": getattr(text_config, "max_position_embeddings", None),
    } | _template_facts(tokenizer, origin)


def _tokenizer_of(
    out: Path, name: str, chat_template: str | None, trust_remote_code: bool
) -> tuple[PreTrainedTokenizerBase, template.Origin]:
    """The tokenizer in `out`, given the padding token and the chat template that it lacks, and
    where the template comes from."""
    tokenizer = load_tokenizer(out, trust_remote_code=trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"the tokenizer of {name!r} has no end-of-sequence token, so a model could not learn "
            "to stop; set eos_token in its tokenizer_config.json"
        )
    published = tokenizer.pad_token, tokenizer.chat_template
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    origin = template.install(tokenizer, chat_template)
    if published != (tokenizer.pad_token, tokenizer.chat_template):
        save_tokenizer(tokenizer, out)
    return tokenizer, origin


def _template_facts(tokenizer: PreTrainedTokenizerBase, origin: template.Origin) -> dict[str, Any]:
    digest = hashlib.sha256(tokenizer.get_chat_template().encode()).hexdigest()
    return {"chat_template": origin, "chat_template_sha256": digest}


def _architecture(out: Path, name: str, trust_remote_code: bool) -> tuple[PreTrainedConfig, int]:
    """The config, and how many parameters a model of it has; tied ones count once."""
    with reading(f"the config of {name!r}"):
        config = AutoConfig.from_pretrained(
            out, local_files_only=True, trust_remote_code=trust_remote_code
        )
        if hasattr(config, "quantization_config"):
            raise ConfigError(
                f"model {name!r} is quantized, and quantized weights cannot be trained; use the "
                "original it was made from"
            )
        judges = str((config.architectures or ["?"])[0]).endswith("ForSequenceClassification")
        # Encoders, of which reward models are made too, have no causal form.
        kind = AutoModelForSequenceClassification if judges else AutoModelForCausalLM
        with torch.device("meta"):
            model = kind.from_config(config, trust_remote_code=trust_remote_code)
    return config, sum(parameter.numel() for parameter in model.parameters())


def _check_ids(tokenizer: PreTrainedTokenizerBase, vocab_size: int, name: str) -> None:
    """Tokens that conversations are made of must have an embedding. Not all tokens have to: some
    published tokenizers know one more, for images, than the text model does."""
    text = template.render(tokenizer)
    used = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    used += tokenizer(text, add_special_tokens=False)["input_ids"]
    if max(used) >= vocab_size:
        token = tokenizer.convert_ids_to_tokens(max(used))
        raise ConfigError(
            f"the tokenizer of {name!r} gives {token!r} the id {max(used)}, but the model has only "
            f"{vocab_size} embeddings; use the tokenizer that belongs to the model"
        )


def _write_generation_config(
    out: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Complete the generation defaults: the tokenizer's end of sequence ends an answer."""
    path = out / GENERATION
    if path.is_file():
        settings = intake.read_json(path)
    else:
        settings = GenerationConfig.from_model_config(config).to_diff_dict()
    settings.pop("_from_model_config", None)
    ends = settings.get("eos_token_id")
    known = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if tokenizer.eos_token_id not in known:
        known = [*known, tokenizer.eos_token_id]
    settings["eos_token_id"] = known if len(known) > 1 else known[0]
    if settings.get("pad_token_id") is None:
        settings["pad_token_id"] = tokenizer.pad_token_id
    if not settings.get("do_sample"):
        # Without sampling they do nothing, except that transformers then refuses to save them.
        settings = {key: value for key, value in settings.items() if key not in SAMPLING}
    write_json(path, settings)
