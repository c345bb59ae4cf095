"""Proximal policy optimisation (arXiv:1707.06347) as it is done for language models
(arXiv:2403.17031): a critic, and a penalty for leaving the reference in the reward of each token.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from aligntune.config.train import Train
from aligntune.losses.advantages import adapted, gae, kl_estimate, token_rewards, whiten
from aligntune.losses.values import explained_variance, value_loss
from aligntune.train.dynamic_sampling import Batch, sequences
from aligntune.train.logprobs import bare
from aligntune.train.rollout import Rollout, given

HEAD = "value_head"
FILE = f"{HEAD}.safetensors"
_COEFFICIENT = "kl_coef"


class Critic:
    """A linear head on the policy's last hidden state, which starts at 0.

    It is a submodule of the policy, so that it is optimised, moved and synchronised with it, but
    the policy is saved without it.
    """

    def __init__(self, policy: PreTrainedModel) -> None:
        self.head = nn.Linear(policy.config.get_text_config().hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._listening: list[Tensor] | None = None
        policy.add_module(HEAD, self.head.to(policy.device))
        policy._keys_to_ignore_on_save |= {f"{HEAD}.weight", f"{HEAD}.bias"}
        policy.base_model.register_forward_hook(self._hear)

    @contextmanager
    def values(self) -> Iterator[list[Tensor]]:
        """Collects, from each forward pass of the policy within, the value (B, L) of the state
        after each of its tokens."""
        heard: list[Tensor] = []
        self._listening = heard
        try:
            yield heard
        finally:
            self._listening = None

    def _hear(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._listening is None:
            return
        hidden = output.last_hidden_state
        with torch.autocast(hidden.device.type, enabled=False):
            self._listening.append(self.head(hidden.float()).squeeze(-1))


def _send_policy(vllm: Any) -> None:
    """Send it the policy without the critic: it refuses weights that its model does not have."""
    every = vllm._iter_named_params
    vllm._iter_named_params = lambda: (sent for sent in every() if not sent[0].startswith(HEAD))


class Ppo(Rollout):
    hears = True

    def __init__(self, settings: Train, **kwargs: Any) -> None:
        super().__init__(settings, **kwargs)
        self.kl_in_loss = 0.0
        self.kl_coef = given(settings.kl_coef)
        self.critic = Critic(bare(self.model))
        if self.use_vllm:
            _send_policy(self.vllm_generation)
        self._values: Tensor | None = None
        self._sampled_values: Tensor | None = None
        """Of the first that is scored of a rollout: TRL scores by the policy first."""

    @classmethod
    def options(cls, train: Train) -> dict[str, Any]:
        return {
            "beta": train.kl_coef,
            "epsilon": train.cliprange,
            "epsilon_high": train.cliprange,
            "num_iterations": train.num_ppo_epochs,
            # A mean over all tokens of the step, and advantages that are scaled here.
            "loss_type": "dapo",
            "scale_rewards": "none",
        }

    def shape_rollout(self, out: Batch, rewards: Tensor, inputs: list[dict[str, Any]]) -> Batch:
        train = self.settings
        # An answer that nothing could judge teaches nothing.
        mask = out["completion_mask"] * ~rewards.isnan()[:, None]
        logps, values = self._score(out)
        penalties = torch.zeros_like(logps)
        judged = mask.any(1)
        if "ref_per_token_logps" in out:
            kl = kl_estimate(logps, out["ref_per_token_logps"], given(train.kl_estimator))
            penalties = self.kl_coef * kl
            self.note("kl", kl, mask)
            self.note("kl_per_answer", (kl * mask).sum(1), judged)
            self._adapt((logps - out["ref_per_token_logps"]) * mask)
        scores = rewards.nan_to_num().to(logps.dtype) - self._missing_eos(out)
        earned = token_rewards(scores, penalties, mask)
        self.note("reward_after_kl", earned.sum(1), judged)
        if train.whiten_rewards:
            earned = whiten(earned, mask, keep_mean=True, reduce=self.total)
        advantages, returns = gae(
            earned, values, mask, gamma=given(train.gamma), lam=given(train.lam)
        )
        self.note("value/mean", values, mask)
        self.note("value/return", returns, mask)
        explained = explained_variance(values, returns, mask, reduce=self.total)
        self._metrics["train"]["value/explained_variance"].append(explained)
        return out | {
            "completion_mask": mask,
            "num_items_in_batch": self.total(mask.sum()),
            "advantages": whiten(advantages, mask, reduce=self.total),
            "old_per_token_logps": logps,
            "old_values": values,
            "returns": returns,
        }

    def extra_loss(self, inputs: Batch) -> Tensor | None:
        train = self.settings
        values, old, clip = given(self._values), inputs["old_values"], given(train.cliprange_value)
        loss = value_loss(values, old, inputs["returns"], clip=clip)
        mask = inputs["completion_mask"]
        self.note("value/loss", loss, mask)
        self.note("value/clip_fraction", ((values.detach() - old).abs() > clip).float(), mask)
        self._values = None
        return given(train.vf_coef) * self.aggregate(loss, inputs)

    def save_state(self, folder: Path) -> None:
        super().save_state(folder)
        if self.args.should_save:
            state = {k: v.detach().cpu() for k, v in self.critic.head.state_dict().items()}
            coefficient = torch.tensor(self.kl_coef, dtype=torch.float64)
            save_file(state | {_COEFFICIENT: coefficient}, folder / FILE)

    def load_state(self, folder: Path) -> None:
        super().load_state(folder)
        state = load_file(folder / FILE)
        self.kl_coef = float(state.pop(_COEFFICIENT))
        self.critic.head.load_state_dict(state)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        with self.critic.values() as heard:
            scored = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        # A separate reference model has no values; without its adapter the policy is the reference.
        self._values = self._before(heard, logits_to_keep) if heard else None
        if self._sampled_values is None and not torch.is_grad_enabled():
            self._sampled_values = self._values
        return scored

    def _before(self, heard: Sequence[Tensor], answers: int) -> Tensor:
        """The value of the state before each token of the answers."""
        return torch.cat(
            [
                values[:, -answers - 1 : -1]
                if batch is None
                else batch.spread(values[0, -len(batch.targets) :])
                for values, batch in zip(heard, self.scored, strict=True)
            ]
        )

    def _adapt(self, log_ratios: Tensor) -> None:
        """What the next round's penalties weigh, by how far this round's answers are."""
        train = self.settings
        self._metrics["train"]["kl_coef"].append(self.kl_coef)
        if train.kl_target is None:
            return
        rows = log_ratios.new_tensor(len(log_ratios))
        far, answers = self.total(torch.stack([log_ratios.sum(), rows])).tolist()
        self.kl_coef = adapted(
            self.kl_coef,
            far / answers,
            target=train.kl_target,
            horizon=given(train.kl_horizon),
            answers=int(answers),
        )

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Batch:
        self._sampled_values = None
        return super()._generate_and_score_completions(inputs)

    @torch.no_grad()
    def _score(self, out: Batch) -> tuple[Tensor, Tensor]:
        """Log-probabilities and values of the answers' tokens by the policy that gave them."""
        if "old_per_token_logps" in out:
            return out["old_per_token_logps"], given(self._sampled_values)
        logps, _, _ = self._get_per_token_logps_and_entropies(
            self.model,
            *sequences(out),
            out["completion_ids"].size(1),
            batch_size=self.args.per_device_train_batch_size,
        )
        values, self._values = given(self._values), None
        return logps, values

    def _missing_eos(self, out: Batch) -> Tensor:
        ends = torch.tensor(self.eos_token_ids, device=out["completion_ids"].device)
        cut_off = ~torch.isin(out["completion_ids"], ends).any(dim=1)
        return given(self.settings.missing_eos_penalty) * cut_off
