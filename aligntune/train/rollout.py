"""Learning from the policy's own answers, on TRL's GRPOTrainer.

TRL samples, scores and clips; an algorithm of ours says what the advantages are
(`shape_rollout`) and what else is in the loss (`extra_loss`). No method of TRL's is copied: four
are wrapped, and one place per process, the rollout in memory, is saved with each checkpoint.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Sampler, SequentialSampler
from trl import GRPOConfig

from aligntune.config.rewards import Reward
from aligntune.config.train import Train
from aligntune.losses.aggregate import Share, aggregate
from aligntune.losses.policy import group_advantages, importance_ratio, informative
from aligntune.train.combiner import Combiner
from aligntune.train.dynamic_sampling import Batch, Sampled, refilled
from aligntune.train.extremes import TOTAL, Extremes
from aligntune.train.guard import Watch
from aligntune.train.logprobs import bare
from aligntune.train.loop import Finite
from aligntune.train.measures import spread
from aligntune.train.positions import count_from_mask
from aligntune.train.quick import Quick
from aligntune.train.timing import Stopwatch

T = TypeVar("T")
_PAST = "scores."
"""Before the names of what is kept of the scores so far."""


def given(value: T | None) -> T:
    """A value that is there by now: a setting that the algorithm has, or part of a rollout."""
    if value is None:
        raise ValueError("a setting of another algorithm, or a hook outside of its place")
    return value


class OnlineConfig(GRPOConfig):  # type: ignore[misc]
    """GRPOConfig, with one answer per prompt allowed: not every advantage needs a group."""

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
        except ValueError as error:
            # The last of its checks, so everything else has been set.
            if self.num_generations != 1 or "at least 2 generations" not in str(error):
                raise


class Epochs(Sampler[int]):
    """TRL's sampler with an order that depends on the epoch's number alone, and not on how many
    epochs this process has seen: one that resumes has seen fewer."""

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler

    def set_epoch(self, epoch: int) -> None:
        self._sampler.generator.manual_seed(self._sampler.seed + (epoch << 32))

    def __iter__(self) -> Iterator[int]:
        yield from self._sampler

    def __len__(self) -> int:
        return len(self._sampler)


class Rollout(Finite, Quick):
    """GRPO as TRL has it. Subclasses are the other methods; both hooks are for training only, in
    evaluation there is nothing to learn."""

    beta: float

    def __init__(self, settings: Train, *, rewards: Sequence[Reward], **kwargs: Any) -> None:
        """The first of TRL's `reward_funcs` are `rewards`; others are added to what these make."""
        super().__init__(**kwargs)
        for model in (self.model, self.ref_model):
            if model is not None:
                count_from_mask(bare(self.accelerator.unwrap_model(model)))
        self.settle(settings)
        self.settings = settings
        self._combiner = Combiner(rewards, self.num_generations)
        # TRL adds columns of scores up; all but the last, the sum that we make, are for its log.
        self.reward_weights = torch.tensor([0.0] * len(self.reward_funcs) + [1.0])
        self.kl_in_loss: float = self.beta
        """Weight of TRL's own KL term. `beta` in the arguments says whether there is a reference
        at all."""
        self.logps: Tensor | None = None
        """(B, T) log-probabilities of the current micro-batch, with gradient, in `extra_loss`."""
        self.watch: Watch | None = None
        """What looks for a collapse, where anything does."""
        self.extremes: Extremes | None = None
        """What keeps the best and worst answers, where anything does."""
        self._totals: Tensor | None = None
        self._merits: Tensor | None = None
        self._clock = Stopwatch()
        self._answered = 0

    @classmethod
    def options(cls, train: Train) -> dict[str, Any]:
        """What the algorithm is, as arguments of GRPOConfig."""
        return {
            "beta": train.beta,
            "epsilon": train.epsilon,
            "epsilon_high": train.epsilon_high,
            "loss_type": train.loss_type,
            "scale_rewards": train.scale_rewards,
            "importance_sampling_level": train.importance_sampling_level,
            "num_iterations": train.num_iterations,
            # With it TRL multiplies the KL term by the importance ratio; the published methods
            # have k3 itself in the loss.
            "use_bias_correction_kl": False,
        }

    # The hooks of the algorithms

    def shape_rollout(self, out: Batch, rewards: Tensor, inputs: list[dict[str, Any]]) -> Batch:
        """`out` with the advantages that the algorithm wants, before it is shuffled and split.

        `rewards` (B,) are what this process's rows earn in all; NaN where no reward could judge.
        `inputs` are the rows of the dataset, one per answer.
        """
        return out

    def extra_loss(self, inputs: Batch) -> Tensor | None:
        """What is added to the clipped loss of the micro-batch `inputs`, already normalised for
        the whole optimizer step, as `aggregate` does it."""
        return None

    def healthy(self) -> bool:
        return self.watch is None or self.watch.healthy()

    # What hooks may use

    def aggregate(self, per_token: Tensor, inputs: Batch) -> Tensor:
        """The micro-batch's part of a loss, averaged as TRL averages the policy's."""
        tokens = inputs["num_items_in_batch"].clamp(min=1) / self.accelerator.num_processes
        accumulated = self.current_gradient_accumulation_steps
        share = Share(
            micro_batches=accumulated,
            # TRL counts those of the rollout.
            tokens=tokens * accumulated / self.args.steps_per_generation,
            longest=self.max_completion_length,
        )
        return aggregate(per_token, inputs["completion_mask"], self.loss_type, share)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all processes."""
        summed: Tensor = self.accelerator.reduce(tensor, reduction="sum")
        return summed

    def record(self, prefix: str, values: Mapping[str, float]) -> None:
        """Log numbers that all processes have alike, as the metrics `<prefix>/<name>`."""
        for name, value in values.items():
            self._metrics["train"][f"{prefix}/{name}"].append(value)

    def note(self, name: str, per_token: Tensor, mask: Tensor) -> None:
        """Log the mean over counted tokens of all processes as the metric `name`."""
        mask = mask.to(per_token.dtype)
        total, count = self.total(torch.stack([(per_token.detach() * mask).sum(), mask.sum()]))
        self._metrics["train"][name].append(float(total / count.clamp(min=1)))

    def save_state(self, folder: Path) -> None:
        """Write what a checkpoint needs beyond model, optimizer and random states."""
        save_file(self._rollout_state(), folder / self._rollout_file)

    def load_state(self, folder: Path) -> None:
        """Read what `save_state` wrote."""
        device = self.accelerator.device
        loaded = load_file(folder / self._rollout_file)
        self._step = int(loaded.pop("step"))
        self._together = bool(loaded.pop("together")) if "together" in loaded else None
        past = [name for name in loaded if name.startswith(_PAST)]
        self._combiner.restore({name.removeprefix(_PAST): loaded.pop(name) for name in past})
        state = {name: tensor.to(device) for name, tensor in loaded.items()}
        batches: list[Batch] = []
        for name in sorted(state, key=lambda name: int(name.split("/")[0])):
            index, key = name.split("/")
            batches += [{} for _ in range(int(index) + 1 - len(batches))]
            batches[int(index)][key] = state[name]
        self._buffered_inputs = batches or None

    # Wrappers around TRL's methods

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler[int]:
        return Epochs(super()._get_train_sampler(dataset))

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler[int]:
        # The same order every time, since it decides what random numbers are left for training.
        return SequentialSampler(eval_dataset)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        with self._clock.time("reward"):
            scores: Tensor = super()._calculate_rewards(*args, **kwargs)
        training, own = self.model.training, len(self._combiner.rewards)
        combine = self._combiner.trained if training else self._combiner.measured
        found = combine(scores[:, :own])
        metrics = self._combiner.metrics(scores[:, :own], found, self.reward_func_names)
        for name, value in metrics.items():
            self._metrics["train" if training else "eval"][name].append(value)
        self._merits = found.rewards
        self._totals = found.rewards + scores[:, own:].sum(1)
        if training:
            self._keep_extremes(scores, *args)
        # What is not judged as a whole must not count as 0.
        scores = scores.masked_fill(self._totals.isnan()[:, None], torch.nan)
        return torch.cat([scores, self._totals[:, None]], dim=1)

    def _keep_extremes(
        self, scores: Tensor, inputs: Any, prompts: list[Any], completions: list[Any], _: Any
    ) -> None:
        period = self.args.steps_per_generation * self.num_iterations
        steps = max(period // self.args.gradient_accumulation_steps, 1)
        if self.extremes is None or not self.extremes.due(self.state, steps):
            return
        self.extremes.taken(self.state)
        asked, said = gather_object(list(prompts)), gather_object(list(completions))
        if self.accelerator.is_main_process:
            columns = dict(zip(self.reward_func_names, scores.T, strict=True))
            together = columns | {TOTAL: given(self._totals)}
            self.extremes.take(self.state.global_step + 1, asked, said, together)

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            scored = super()._get_per_token_logps_and_entropies(*args, **kwargs)
            self.logps = scored[0]
            return scored
        with self._clock.time("score"):
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Batch:
        sampled = self._sampled(inputs)
        if not self.model.training:
            return sampled.out
        if self.settings.max_resampling:
            sampled = self._refilled(sampled)
        out = self.shape_rollout(sampled.out, sampled.rewards, sampled.inputs)
        advantages = out["advantages"]
        counted = advantages[out["completion_mask"].bool()] if advantages.dim() > 1 else advantages
        self.record("advantages", spread(counted, self.accelerator))
        return out

    def _compute_loss(self, model: Any, inputs: Batch) -> Tensor:
        with self._own_kl():
            loss: Tensor = super()._compute_loss(model, inputs)
        extra = self.extra_loss(inputs) if self.model.training else None
        if self.model.training and "old_per_token_logps" in inputs:
            self._moved(given(self.logps).detach(), inputs)
        self.logps = None
        return loss if extra is None else loss + extra

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        found = super().prediction_step(*args, **kwargs)
        # What an evaluation took is no part of the next step.
        self._clock.read()
        self._clock.cpu()
        self._answered = 0
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        # Without an advantage the loss on held-out prompts says nothing.
        told = {k: v for k, v in logs.items() if k != "eval_loss"}
        if self.model.training and "loss" in logs:
            told |= self._times()
        super().log(told, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.save_state(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.load_state(Path(checkpoint))

    def _moved(self, logps: Tensor, inputs: Batch) -> None:
        """Log how far the policy is from the one that answered."""
        old, mask = inputs["old_per_token_logps"], inputs["completion_mask"]
        ratio = importance_ratio(logps, old, mask, self.importance_sampling_level)
        counted = ratio[mask.bool()] if ratio.size(1) > 1 else ratio[mask.any(1)]
        self.record("ratio", spread(counted, self.accelerator))
        self.note("ratio/approx_kl", (logps - old) ** 2 / 2, mask)

    def _times(self) -> dict[str, float]:
        """Seconds since the last logged step by what they were spent on: sampling answers, judging
        them, forward passes without gradient, and the rest, which is the update. Besides, the
        process's own CPU-seconds, which other work on the machine does not change."""
        spent = {"generate": 0.0, "reward": 0.0, "score": 0.0} | self._clock.read()
        if spent["generate"]:
            self._metrics["train"]["tokens_per_second"] = [self._answered / spent["generate"]]
        self._answered = 0
        spent["update"] = max(sum(self._metrics["train"]["step_time"]) - sum(spent.values()), 0.0)
        spent["cpu"] = self._clock.cpu()
        return {f"time/{name}": seconds for name, seconds in spent.items()}

    def _sampled(self, inputs: list[dict[str, Any]]) -> Sampled:
        with self._clock.time("generate"):
            out: Batch = super()._generate_and_score_completions(inputs)
        self._answered += int(out["completion_mask"].sum())
        first = self.accelerator.process_index * len(inputs)
        own = slice(first, first + len(inputs))
        rewards = given(self._totals)
        if self.model.training and self.num_generations > 1:
            self._compare(out, rewards.view(-1, self.num_generations), own)
        return Sampled(out, rewards[own], given(self._merits)[own], inputs)

    def _compare(self, out: Batch, rewards: Tensor, own: slice) -> None:
        """Advantages as TRL has them, but 0 where all answers to a prompt are rewarded alike: TRL
        divides the rounding of their mean by a spread that is none. `rewards` (P, G) are those of
        all processes."""
        advantages = group_advantages(rewards, self.scale_rewards)
        out["advantages"] = advantages.flatten()[own].to(out["advantages"].dtype)
        useful = informative(rewards).float().mean()
        self._metrics["train"]["frac_reward_zero_std"][-1] = 1 - float(useful)

    def _refilled(self, first: Sampled) -> Sampled:
        sampled, rounds = refilled(
            first,
            answers=self.num_generations,
            rounds=given(self.settings.max_resampling),
            pad_id=self._tokenizer.pad_token_id,
            more=lambda number, groups: self._sampled(self._others(number, groups)),
            most=lambda lacking: max(gather_object([lacking])),
        )
        good = informative(sampled.merits.view(-1, self.num_generations)).float()
        useful, groups = self.total(torch.stack([good.sum(), good.new_tensor(len(good))])).tolist()
        self.record("resampling", {"rounds": float(rounds), "useful_groups": useful / groups})
        sampled.out["num_items_in_batch"] = self.total(sampled.out["completion_mask"].sum())
        return sampled

    def _others(self, number: int, groups: int) -> list[dict[str, Any]]:
        """Prompts for one more round: the same whenever this step is taken, others on every
        process."""
        generator = torch.Generator().manual_seed(hash((self.args.seed, self._step, number)))
        order = torch.randperm(len(self.train_dataset), generator=generator).tolist()
        first = self.accelerator.process_index * groups
        chosen = [order[(first + i) % len(order)] for i in range(groups)]
        return [self.train_dataset[i] for i in chosen for _ in range(self.num_generations)]

    @contextmanager
    def _own_kl(self) -> Iterator[None]:
        asked, self.beta = self.beta, self.kl_in_loss
        try:
            yield
        finally:
            self.beta = asked

    @property
    def _rollout_file(self) -> str:
        return f"rollout-{self.accelerator.process_index}.safetensors"

    def _rollout_state(self) -> Batch:
        past = {f"{_PAST}{name}": tensor for name, tensor in self._combiner.state().items()}
        step = {"step": torch.tensor(self._step)} | past
        between = self._step % (self.args.steps_per_generation * self.num_iterations) == 0
        if between or self._buffered_inputs is None:
            return step
        return (
            step
            | self.together_state()
            | {
                f"{index}/{key}": tensor.detach().clone().contiguous()
                for index, batch in enumerate(self._buffered_inputs)
                for key, tensor in batch.items()
            }
        )
