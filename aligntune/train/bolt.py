"""BOLT: rewards are compared with what their prompt has earned before (SPO, arXiv:2509.13232).

One answer per prompt is enough. With more, the others of the visit are part of the baseline.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler

from aligntune.config.train import Bolt, Train
from aligntune.errors import ConfigError
from aligntune.losses.baseline import kept, leave_one_out, whitened
from aligntune.train.bolt_memory import Curriculum, Memory, Visit, prompt_key
from aligntune.train.bolt_warm_start import warm_start
from aligntune.train.dynamic_sampling import Batch
from aligntune.train.logprobs import completion_logps
from aligntune.train.rollout import Rollout

LOG = logging.getLogger(__name__)

FILE = "bolt.json"
EASY, HARD = 0.8, 0.2
"""Success rates above and below which there is little to learn from a prompt."""
NO_NEWS = 0.05
"""A reward that is this close to what was expected."""
DIGITS = 4
"""Of the log-probabilities kept: far below any drift that matters."""


class Seen(NamedTuple):
    """What a visit shows of a prompt beyond its rewards."""

    drift: float | None
    """Mean absolute log-ratio per token on the previous visit's completion; None without one."""
    last: Visit | None


class BoltTrainer(Rollout):
    def __init__(self, settings: Train, **kwargs: Any) -> None:
        if settings.scale_rewards == "group":
            raise ConfigError(
                "train.scale_rewards: bolt compares with the past, not within a group; use batch "
                "or none"
            )
        self._section = settings.bolt or Bolt()
        self.memory = Memory(self._section.prior)
        super().__init__(settings, **kwargs)
        if self._section.warm_start:
            keys = [prompt_key(prompt) for prompt in self.train_dataset["prompt"]]
            self.memory.state = warm_start(self._section, keys)
            LOG.info("bolt starts with beliefs about %d of %d prompts", len(self.memory), len(keys))

    def shape_rollout(self, out: Batch, rewards: Tensor, inputs: list[dict[str, Any]]) -> Batch:
        if not self._section.tracker:
            return out
        own = [prompt_key(row["prompt"]) for row in inputs]
        seen = self._seen(out, own)
        # All processes take in the same rewards in the same order, so that they go on alike.
        keys: list[str] = gather_object(own)
        scores = torch.tensor(gather_object(rewards.tolist()), dtype=torch.float64)
        raw = self._advantages(keys, scores, seen)
        advantages = raw.nan_to_num(0.0) if self.scale_rewards == "none" else whitened(raw)
        first = self.accelerator.process_index * len(own)
        local = advantages[first : first + len(own)]
        return out | {"advantages": local.to(rewards.device, torch.float32)}

    def save_state(self, folder: Path) -> None:
        super().save_state(folder)
        if self.args.should_save:
            self.memory.save(folder / FILE)

    def load_state(self, folder: Path) -> None:
        super().load_state(folder)
        self.memory.restore(folder / FILE)

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler[int]:
        if not self._section.curriculum:
            plain: Sampler[int] = super()._get_train_sampler(dataset)
            return plain
        rows = self.train_dataset if dataset is None else dataset
        reads = self.num_iterations * self.args.steps_per_generation
        steps = max(reads // self.args.gradient_accumulation_steps, 1)
        return Curriculum(
            [prompt_key(prompt) for prompt in rows["prompt"]],
            self.memory,
            size=self.args.generation_batch_size // self.num_generations,
            answers=self.num_generations,
            reads=reads,
            ahead=max(self._section.curriculum_interval // steps, 1),
            floor=self._section.curriculum_floor,
            seed=self.args.seed,
            # A fraction while an epoch lasts; whole at its end, but for rounding.
            epoch=lambda: int((self.state.epoch or 0.0) + 1e-6),
        )

    def _advantages(self, keys: Sequence[str], scores: Tensor, seen: dict[str, Seen]) -> Tensor:
        """Rewards less their baselines, by what was known before this visit, which is then taken
        in. NaN where no reward could judge. (N,) -> (N,)"""
        section, raw = self._section, torch.full_like(scores, torch.nan)
        shares, values, found, new = [], [], [], 0
        for key, rows in _visits(keys, scores):
            drift, last = seen[key]
            share = kept(
                drift or 0.0,
                half_life=section.half_life,
                least=section.rho_min,
                most=section.rho_max,
            )
            rewards, belief = scores[rows].tolist(), self.memory.belief(key)
            baselines = leave_one_out(belief, rewards, share)
            raw[rows] = scores[rows] - torch.tensor(baselines, dtype=scores.dtype)
            new += key not in self.memory
            shares.append(share)
            values.append(belief.value)
            found.append(sum(rewards) / len(rewards))
            self.memory.visit(key, rewards, share, last)
        drifts = [one.drift for one in seen.values() if one.drift is not None]
        self._measure(values, shares, drifts, new)
        self._judge_beliefs(values, found, raw)
        return raw

    def _seen(self, out: Batch, own: Sequence[str]) -> dict[str, Seen]:
        """How far the policy moved for each prompt since its last visit, and what to measure its
        next one by. One forward pass for each prompt and for each previous completion."""
        prompts: dict[str, list[int]] = {}
        fresh: dict[str, list[int]] = {}
        for row, key in enumerate(own):
            prompts.setdefault(key, _real(out["prompt_ids"][row], out["prompt_mask"][row]))
            completion = _real(out["completion_ids"][row], out["completion_mask"][row])
            if completion:
                fresh.setdefault(key, completion)
        before = {key: last for key in prompts if (last := self.memory.last(key))}
        logps = completion_logps(
            self,
            [prompts[key] for key in (*before, *fresh)],
            [*(visit.completion for visit in before.values()), *fresh.values()],
            self._tokenizer.pad_token_id,
        )
        now = dict(zip(before, logps, strict=False))
        then = dict(zip(fresh, logps[len(before) :], strict=True))
        found = [
            (
                key,
                Seen(
                    _drift(before[key].logps, now[key]) if key in before else None,
                    _visit(fresh[key], then[key]) if key in fresh else None,
                ),
            )
            for key in prompts
        ]
        # A group that spans processes is measured by the first of them.
        return dict(reversed(gather_object(found)))

    def _measure(
        self, values: Sequence[float], shares: Sequence[float], drifts: Sequence[float], new: int
    ) -> None:
        """Log what the baselines were; the same numbers on every process."""
        if not values:
            return
        section, known = self._section, torch.tensor(values)
        measured = {
            "value_mean": float(known.mean()),
            "value_std": float(known.std(correction=0)),
            "kept": sum(shares) / len(shares),
            "kept_least": sum(share <= section.rho_min for share in shares) / len(shares),
            "first_visits": new / len(values),
            "prompts": float(len(self.memory)),
        }
        if drifts:
            measured["drift"] = sum(drifts) / len(drifts)
        self.record("baseline", measured)

    def _judge_beliefs(self, values: Sequence[float], found: Sequence[float], raw: Tensor) -> None:
        """Log how good the beliefs are and what they leave to learn: how far they are from the
        rewards that then came, prompts by how sure a success is, and rewards that are no news."""
        if not values:
            return
        low, high = self.memory.state.low, self.memory.state.high
        rates = (torch.tensor(values) - low) / (high - low)
        judged = raw[~raw.isnan()]
        self.record(
            "baseline",
            {
                "error": float((torch.tensor(values) - torch.tensor(found)).abs().mean()),
                "easy": float((rates > EASY).float().mean()),
                "hard": float((rates < HARD).float().mean()),
                "no_news": float((judged.abs() < NO_NEWS).float().mean()),
            },
        )


def _visits(keys: Sequence[str], scores: Tensor) -> Iterator[tuple[str, list[int]]]:
    """For each prompt the rows of its completions that a reward could judge, if any."""
    judged: dict[str, list[int]] = {}
    for row, (key, score) in enumerate(zip(keys, scores.tolist(), strict=True)):
        if score == score:
            judged.setdefault(key, []).append(row)
    yield from judged.items()


def _real(ids: Tensor, mask: Tensor) -> list[int]:
    real: list[int] = ids[mask.bool()].tolist()
    return real


def _visit(completion: Sequence[int], logps: Sequence[float]) -> Visit:
    return Visit(completion=tuple(completion), logps=tuple(round(logp, DIGITS) for logp in logps))


def _drift(then: Sequence[float], now: Sequence[float]) -> float:
    return sum(abs(b - a) for a, b in zip(then, now, strict=True)) / len(then)
