"""Any prepared model as one that gives a score: a classification model with a single output."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module, Parameter
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from aligntune.config.slices import TrainSlice
from aligntune.models.load import check_whole, read_weights, reading
from aligntune.models.trainable import check_kernel, check_targets

REMEDY = "use a model of which transformers has a classification form, with all its files"


def load_scorer(path: Path, spec: TrainSlice) -> PreTrainedModel:
    """The model in `path` with fp32 weights on the CPU and one output.

    A head of one output is kept. Any other, and the one that a generative model lacks, is new:
    normal with a standard deviation of 1/sqrt(inputs + 1) (arXiv:2009.01325), the same for the same
    seed.

    Raises:
        ConfigError: the model has no classification form, or lacks weights besides the head's.
    """
    check_kernel(spec)
    options = {"attn_implementation": spec.attn_implementation} if spec.attn_implementation else {}
    with reading(f"reward model {path}", REMEDY):
        model, report = read_weights(
            AutoModelForSequenceClassification,
            path,
            trust_remote_code=spec.trust_remote_code,
            num_labels=1,
            ignore_mismatched_sizes=True,
            **options,
        )
    body = f"{model.base_model_prefix}."
    new = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    check_whole({"missing_keys": [n for n in new if n.startswith(body)]}, f"reward model {path}")
    _draw({name: weight for name, weight in model.named_parameters() if name in new}, spec.seed)
    check_targets(model, spec)
    model.config.problem_type = None  # of the labels that it had
    made: PreTrainedModel = model
    return made


def head_of(model: Any) -> list[tuple[str, Module]]:
    """The modules beside the body, by name: `score`, `classifier`, ..."""
    body = model.base_model_prefix
    return [
        (name, module)
        for name, module in model.named_children()
        if name != body and any(True for _ in module.parameters())
    ]


def _draw(weights: Mapping[str, Parameter], seed: int) -> None:
    """New values, whatever else was drawn before."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in weights.items():
        if weight.dim() > 1:
            std = (weight.shape[-1] + 1) ** -0.5
            torch.nn.init.normal_(weight, std=std, generator=generator)
        elif name.endswith("bias"):
            torch.nn.init.zeros_(weight)
