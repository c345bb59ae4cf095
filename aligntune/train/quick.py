"""TRL's GRPOTrainer with a sampler and a way to score answers that are quicker on a CPU.

This is the only place that knows where TRL samples and scores. On a GPU, with images or tools, and
for models that the quicker ways do not fit, TRL's own are used.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer
from trl.models.utils import unwrap_model_for_generation

from aligntune.config.train import Train
from aligntune.errors import ConfigError
from aligntune.train.dynamic_sampling import Batch
from aligntune.train.group_attention import attend_by_group
from aligntune.train.lm_head import Lighter, lighten
from aligntune.train.logprobs import bare, frozen
from aligntune.train.packed import can_pack, packed
from aligntune.train.padding_free import sees_all
from aligntune.train.sampling import Sampling, can_sample, sample
from aligntune.train.shared_prompt import Shared, agrees, by_prompt, pays, score, shared

LOG = logging.getLogger(__name__)
SCORED = ("log_probs", "entropy")
"""What TRL's GRPOTrainer has its head compute."""


_TRLS = Lighter(plain_head=False, padding_free=False)


@dataclass(frozen=True)
class Ways:
    """How a stage samples and scores here."""

    sampler: bool = False
    """By `sample`, and not by the model's `generate`."""
    copy: bool = False
    """From bf16 weights of its own."""
    shared: bool = False
    """Prompts are computed once for all answers to them, where that is less work."""
    lighter: Lighter = _TRLS
    """How rows are scored whose prompts are not shared; its head is that of the others too."""

    def made(self) -> dict[str, bool]:
        """By the names in `estimate.memory.Choice`."""
        return {
            "own_sampler": self.sampler,
            "generation_copy": self.copy,
            "shared_prompts": self.shared,
            **asdict(self.lighter),
        }

    def __str__(self) -> str:
        sampler = "reading each prompt once" if self.sampler else "as transformers does"
        weights = " from a bf16 copy of the weights" if self.copy else ""
        scored = "prompts computed once where that pays" if self.shared else "every row whole"
        return f"answers are sampled {sampler}{weights}, and scored with {scored}"


class Quick(GRPOTrainer):  # type: ignore[misc]
    """What it does is decided by `settle`; before that it is TRL's trainer."""

    ways = Ways()
    made: Mapping[str, bool]
    hears = False
    """Whether the algorithm listens to the model's states, which it expects at their places."""
    scored: list[Shared | None]
    """Of the latest scoring, each forward pass: the answers' tokens are the last of its row. None
    where its rows were whole."""
    _buffered_inputs: list[Batch] | None
    _grouped = False
    _longest = 0
    """Tokens of a row at most."""
    _together: bool | None = None
    """Whether the current rollout's answers share prompts; the same for all that is scored of it,
    since the two ways round differently."""

    def settle(self, train: Train) -> None:
        """Decide how to sample and to score, by what `train` asks for and what there is.

        Raises:
            ConfigError: what it asks for cannot be done with this model or machine.
        """
        self.scored = []
        self._longest = (train.max_prompt_length or 0) + self.max_completion_length
        cpu = self.accelerator.device.type == "cpu"
        model = bare(self.model)
        sampler = train.sampler == "auto" and cpu and not self.use_vllm and can_sample(model)
        copy = _wanted(train.generation_copy, sampler and bool(self.args.bf16))
        if copy and not (sampler and can_pack()):
            if train.generation_copy is True:
                raise ConfigError(
                    "train.generation_copy: needs a CPU with bf16, sampler: auto, and a decoder "
                    "with a plain cache of keys and values; leave it at auto"
                )
            copy = False
        lighter = self._lightened(train)
        asked = _wanted(train.shared_prompts, cpu)
        fits = asked and self._can_share()
        if train.shared_prompts is True and not fits:
            raise ConfigError(
                "train.shared_prompts: this model's attention cannot tell answers apart, or has a "
                "window shorter than a row; use model.attn_implementation: sdpa, or a smaller "
                "train.max_length, or leave it at auto"
            )
        self.ways = Ways(sampler=sampler, copy=copy, shared=fits, lighter=lighter)
        self.made = self.ways.made()
        LOG.info("%s", self.ways)

    @contextmanager
    def comparing(self, grouped: bool) -> Iterator[None]:
        """What is scored within, outside of training, may share prompts if `grouped`."""
        before, self._grouped = self._grouped, grouped
        try:
            yield
        finally:
            self._grouped = before

    def _lightened(self, train: Train) -> Lighter:
        """Policy and reference with the same lighter forward, as far as both take it."""
        lighter = Lighter.asked(train)
        if self.hears:
            lighter = replace(lighter, padding_free=False)
        if lighter == _TRLS:
            return lighter
        self._uncover_reference()
        for model in self._models():
            lighter = lighten(
                model,
                lighter,
                wanted=SCORED,
                longest=self._longest,
                temperature=self.temperature,
            )
        return lighter

    def _uncover_reference(self) -> None:
        """Take off what accelerate has put around it, which is done again where it is scored: in
        bf16 nothing would be found the same again."""
        if "_original_forward" in vars(self.ref_model or object):
            self.ref_model.forward = self.ref_model._original_forward
            del self.ref_model._original_forward

    def _models(self) -> list[Any]:
        """The policy, and the reference where that is another model."""
        models = (self.model, self.ref_model)
        return [self.accelerator.unwrap_model(each) for each in models if each is not None]

    def _can_share(self) -> bool:
        """Whether the models take answers to one prompt in one row, which is tried."""
        if self._is_vlm or self.aux_loss_enabled:
            return False
        self._uncover_reference()
        return all(
            attend_by_group(bare(model)) and sees_all(bare(model), self._longest) and agrees(model)
            for model in self._models()
        )

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if not self.ways.sampler or images or multimodal_fields:
            # accelerate has seen to the adapter's `forward`, and `generate` goes past that.
            past = bare(self.model) is not self.model and not self.use_vllm
            with self.accelerator.autocast() if past else nullcontext():
                return super()._generate_single_turn(
                    prompt_ids, images, multimodal_fields, *args, **kwargs
                )
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            frozen(model),
            packed(model) if self.ways.copy else nullcontext(),
        ):
            return sample(model, prompt_ids, self._sampling()), None

    def _sampling(self) -> Sampling:
        return Sampling(
            length=self.max_completion_length,
            ends=frozenset(self.eos_token_ids),
            pad=self._tokenizer.pad_token_id,
            temperature=self.temperature,
            top_k=self.top_k or 0,
            top_p=self.top_p,
        )

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        every = self.args.steps_per_generation * self.num_iterations
        begins = self.model.training and (self._step % every == 0 or self._buffered_inputs is None)
        if not begins:
            return super()._prepare_inputs(generation_batch)
        self._together = None
        inputs = super()._prepare_inputs(generation_batch)
        if self._shares(inputs["prompt_ids"].size(1), inputs["completion_ids"].size(1)):
            # Answers to one prompt go into the same forward passes.
            dealt = by_prompt(self._buffered_inputs or [])
            self._buffered_inputs = dealt
            inputs = dealt[self._step % self.args.steps_per_generation]
        return inputs

    def _shares(self, prompt: int, answer: int) -> bool:
        """Whether prompts are shared, by the lengths of the first of a rollout that is scored."""
        if not self.model.training:
            return self.ways.shared and self._grouped
        if self._together is None:
            rows = self.args.per_device_train_batch_size
            prompts = -(-rows // self.num_generations)
            self._together = self.ways.shared and pays(
                bare(self.accelerator.unwrap_model(self.model)), prompt, answer, rows, prompts
            )
        return self._together

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **given: Any,
    ) -> Any:
        size = batch_size or len(input_ids)
        starts = range(0, len(input_ids), size)
        usual = super()._get_per_token_logps_and_entropies
        if not self._shares(input_ids.size(1) - logits_to_keep, logits_to_keep):
            self.scored = [None for _ in starts]
            options = {"batch_size": batch_size, "compute_entropy": compute_entropy}
            return usual(model, input_ids, attention_mask, logits_to_keep, **options, **given)
        self.scored, found = [], []
        for start in starts:
            ids, mask = input_ids[start : start + size], attention_mask[start : start + size]
            batch = shared(ids, mask, logits_to_keep)
            self.scored.append(batch)
            if batch is None:  # an answer to nothing: TRL keeps its zeros in the graph
                found.append(usual(model, ids, mask, logits_to_keep, None, compute_entropy)[:2])
            else:
                found.append(self._scored_together(model, batch, compute_entropy))
        entropies = torch.cat([each[1] for each in found]) if compute_entropy else None
        return torch.cat([each[0] for each in found]), entropies, None

    def _scored_together(
        self, model: Any, batch: Shared, entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        with self.accelerator.autocast():
            logps, entropies = score(
                model,
                batch,
                temperature=self.temperature,
                plain=self.ways.lighter.plain_head,
                entropy=entropy,
            )
        return batch.spread(logps), None if entropies is None else batch.spread(entropies)

    def together_state(self) -> Batch:
        """What a checkpoint within a rollout has to keep of this."""
        return {} if self._together is None else {"together": torch.tensor(self._together)}


def _wanted(asked: bool | str | None, usually: bool) -> bool:
    return usually if asked in ("auto", None) else bool(asked)
