"""Building the trainer of an online algorithm from its settings."""

from importlib.util import find_spec
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.rewards import get_soft_overlong_punishment

from aligntune.config.slices import TrainSlice
from aligntune.config.train import Train, Vllm
from aligntune.errors import ConfigError, DataError
from aligntune.train.concurrent_rewards import at_once
from aligntune.train.extremes import FILE, Extremes
from aligntune.train.guard import Watch
from aligntune.train.loop import Setting, arguments, configured
from aligntune.train.lora import lora
from aligntune.train.reward_functions import judges
from aligntune.train.rollout import OnlineConfig, Rollout, given
from aligntune.train.rows import fitting


def online_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    heldout: Dataset | None,
    spec: TrainSlice,
    setting: Setting,
    kind: type[Rollout] = Rollout,
) -> Rollout:
    """A trainer of `kind`. The reference is the policy that the stage starts from.

    Raises:
        ConfigError: the tokenizer has no token that ends an answer.
        DataError: the prompts that fit are not enough for one rollout.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "the model's tokenizer has no end-of-sequence token, so no answer would ever end; use "
            "a tokenizer with `eos_token`"
        )
    settings = spec.train
    prompts = fitting(train, settings.max_prompt_length)
    measured = fitting(heldout, settings.max_prompt_length) if heldout else None
    config = configured(
        OnlineConfig,
        **_arguments(spec, setting, evaluates=bool(measured)) | kind.options(settings),
    )
    needed = config.generation_batch_size // config.num_generations
    if len(prompts) < needed:
        # TRL would take no step at all.
        raise DataError(
            f"one round of sampling needs {needed} prompts, and {len(prompts)} of {len(train)} "
            f"have at most {settings.max_prompt_length} tokens; add data, raise "
            "train.max_prompt_length, or lower train.per_device_batch_size"
        )
    made = kind(
        settings,
        rewards=spec.rewards,
        model=model,
        args=config,
        reward_funcs=[
            *at_once(judges(spec.rewards, model, tokenizer), spec.rewards),
            *_punishments(settings),
        ],
        train_dataset=prompts,
        eval_dataset=measured or None,
        processing_class=tokenizer,
        peft_config=lora(spec.peft, model),
    )
    made.watch = Watch(spec.algo, settings)
    made.add_callback(made.watch)
    if spec.sample_logging is not None:
        made.extremes = Extremes(spec.sample_logging, setting.out / FILE)
        made.add_callback(made.extremes)
    return made


def _sampler(vllm: Vllm | None) -> dict[str, Any]:
    if vllm is None:
        return {}
    if find_spec("vllm") is None or not torch.cuda.is_available():
        raise ConfigError(
            "train.vllm needs a GPU and the package vllm (`pip install trl[vllm]`); remove it to "
            "sample with the policy itself"
        )
    options = {name: value for name, value in vllm.model_dump().items() if value is not None}
    return {"use_vllm": True} | {f"vllm_{name}": value for name, value in options.items()}


def _punishments(train: Train) -> list[Any]:
    """What is taken from the rewards of long answers (arXiv:2503.14476, equation 13)."""
    if not train.overlong_buffer:
        return []
    punish = get_soft_overlong_punishment(given(train.max_completion_length), train.overlong_buffer)
    punish.__name__ = "soft_overlong"
    return [punish]


def _arguments(spec: TrainSlice, setting: Setting, *, evaluates: bool) -> dict[str, Any]:
    train = spec.train
    shared = arguments(spec, setting, evaluates=evaluates)
    del shared["max_length"]  # prompts and answers have limits of their own
    return shared | {
        "num_generations": train.num_generations,
        # One answer to each held-out prompt measures the reward; their loss means nothing.
        "num_generations_eval": 1,
        "steps_per_generation": train.steps_per_generation,
        "max_completion_length": train.max_completion_length,
        "temperature": train.temperature,
        "top_p": train.top_p,
        "top_k": train.top_k,
        "entropy_coef": train.ent_coef,
        "mask_truncated_completions": train.mask_truncated_completions,
        # Else old and new log-probabilities of the same weights would differ.
        "disable_dropout": True,
        **_sampler(train.vllm),
        # Hooks read tensors that a search for unused parameters does not see.
        "ddp_find_unused_parameters": False,
    }
