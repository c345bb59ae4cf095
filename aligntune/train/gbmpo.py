"""Group-based mirror policy optimisation (arXiv:2602.04380): the GRPO family with another
divergence from the reference than KL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from aligntune.config.presets import alone
from aligntune.config.train import Gbmpo as Section
from aligntune.config.train import Train
from aligntune.losses.divergence import Divergence, divergence, estimate, exact, neural
from aligntune.losses.mirror import mirror
from aligntune.train.dynamic_sampling import Batch, sequences
from aligntune.train.mirror_file import read_mirror
from aligntune.train.rollout import Rollout, given


def _divergence(section: Section) -> Divergence:
    if section.divergence != "neural":
        return divergence(alone(section))
    if section.mirror_path:
        return neural(read_mirror(section.mirror_path))
    return neural(mirror(section.mirror_seed))


class Gbmpo(Rollout):
    def __init__(self, settings: Train, **kwargs: Any) -> None:
        super().__init__(settings, **kwargs)
        self.kl_in_loss = given(settings.beta)
        self._section = given(settings.gbmpo)
        self._divergence = _divergence(self._section)
        self._penalty: Tensor | None = None
        self._scored: Tensor | None = None

    @classmethod
    def options(cls, train: Train) -> dict[str, Any]:
        options = super().options(train)
        # Any beta but 0 has TRL score the answers by the reference.
        return options | {"beta": train.beta or float(bool(given(train.gbmpo).coefficient))}

    def extra_loss(self, inputs: Batch) -> Tensor | None:
        section = self._section
        if not section.coefficient:
            return None
        logps, reference = given(self.logps), inputs["ref_per_token_logps"]
        mask = inputs["completion_mask"]
        with torch.no_grad():
            for how in ("sampled", "sampled_is"):
                terms = estimate(logps, reference, self._divergence, how)
                self.note(f"divergence/{how}", terms, mask)
        if section.full_vocabulary:
            terms = self._exact(inputs)
            self.note("divergence/exact", terms, mask)
        else:
            terms = estimate(logps, reference, self._divergence, section.estimator)
        self._scored = logps
        self._penalty = section.coefficient * self.aggregate(terms, inputs)
        return self._penalty

    def _compute_loss(self, model: Any, inputs: Batch) -> Tensor:
        loss: Tensor = super()._compute_loss(model, inputs)
        if self._penalty is not None:
            self._share("loss", loss.detach() - self._penalty.detach(), self._penalty.detach())
            if not self._section.full_vocabulary:
                self._share("gradient", *self._slopes(loss, self._penalty, given(self._scored)))
        self._penalty = self._scored = None
        return loss

    def _slopes(self, loss: Tensor, penalty: Tensor, logps: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the rest of the loss and of the penalty by the tokens' log-probabilities:
        by the weights both are the same linear map of these."""
        every, own = (
            torch.autograd.grad(part, logps, retain_graph=True)[0] for part in (loss, penalty)
        )
        return (every - own).norm(), own.norm()

    def _share(self, what: str, rest: Tensor, penalty: Tensor) -> None:
        """Log how much of the two together is the penalty, over all processes."""
        rest, own = self.total(torch.stack([rest.abs(), penalty.abs()])).tolist()
        if rest + own:
            self.record("divergence", {f"{what}_share": own / (rest + own)})

    def _exact(self, inputs: Batch) -> Tensor:
        """(B, T), from a forward pass of the policy and one of the reference. Both have to run the
        model's own head: the one that TRL puts in its place gives no logits."""
        with torch.no_grad(), self._reference() as model:
            reference = self._logits(model, inputs)
        return exact(self._logits(self.model, inputs), reference, self._divergence)

    def _logits(self, model: Any, inputs: Batch) -> Tensor:
        """(B, T, V) of the answers' tokens, at the sampling temperature."""
        ids, mask = sequences(inputs)
        with self.accelerator.autocast():  # the reference has none of its own
            logits = model(
                input_ids=ids,
                attention_mask=mask,
                logits_to_keep=inputs["completion_ids"].size(1) + 1,
                use_cache=False,
            ).logits
        scaled: Tensor = logits[:, :-1].float() / self.temperature
        return scaled

    @contextmanager
    def _reference(self) -> Iterator[Any]:
        """The model that the stage started from: TRL's copy, or the policy without its adapter."""
        if self.ref_model is not None:
            yield self.ref_model
            return
        with self.accelerator.unwrap_model(self.model).disable_adapter():
            yield self.model
