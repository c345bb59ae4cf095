"""Counterfactual GRPO (arXiv:2602.09331): tokens weigh by what masking them does to the answer.

The weights multiply advantages, so the policy term alone has them, and not the KL term. The answer
is the model's own, right or wrong.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aligntune.config.train import Counterfactual, Train
from aligntune.evaluate.forward import padded
from aligntune.losses.importance import Mode, chosen, importance, normalised, weights
from aligntune.train.dynamic_sampling import Batch, sequences
from aligntune.train.logprobs import token_logps
from aligntune.train.rollout import Rollout
from aligntune.train.spans import Layout, layout

DIGITS = 4
"""Of a drop that is shown."""


class CounterfactualTrainer(Rollout):
    def __init__(self, settings: Train, **kwargs: Any) -> None:
        super().__init__(settings, **kwargs)
        self._section = settings.counterfactual or Counterfactual()

    def shape_rollout(self, out: Batch, rewards: Tensor, inputs: list[dict[str, Any]]) -> Batch:
        mode = self._section.mode
        if mode == "vanilla":
            return out
        return out | {"advantages": out["advantages"][:, None] * self._token_weights(out, mode)}

    def explain(
        self, prompts: Sequence[list[int]], answers: Sequence[list[int]]
    ) -> list[dict[str, Any]]:
        """For answers to look at: their spans, and by how many nats the end of each is less likely
        without one; nothing where no answer marker is found."""
        pad = self._tokenizer.pad_token_id
        device = self.accelerator.device
        (asked, asked_mask), (said, said_mask) = (
            (ids.to(device), mask.to(device))
            for ids, mask in (padded(prompts, pad, "left"), padded(answers, pad, "right"))
        )
        out = {
            "prompt_ids": asked,
            "prompt_mask": asked_mask,
            "completion_ids": said,
            "completion_mask": said_mask,
        }
        layouts = [self._layout(list(ids)) for ids in answers]
        return [
            {"spans": self._told(ids, found, drops)} if found else {}
            for ids, found, drops in zip(answers, layouts, self._drops(out, layouts), strict=True)
        ]

    def _told(self, ids: list[int], found: Layout, drops: Sequence[float]) -> list[dict[str, Any]]:
        texts = [self._tokenizer.decode(ids[start:end]).strip() for start, end in found.spans]
        return [
            {"text": text, "drop": round(drop, DIGITS)}
            for text, drop in zip(texts, drops, strict=True)
        ]

    def _token_weights(self, out: Batch, mode: Mode) -> Tensor:
        """With mean 1 per completion; 1 where there is no answer marker or no advantage. (B, T)"""
        began = time.perf_counter()
        lengths = [int(length) for length in out["completion_mask"].sum(1)]
        layouts = [
            self._layout(ids[:length].tolist()) if advantage else None
            for ids, length, advantage in zip(
                out["completion_ids"], lengths, out["advantages"].tolist(), strict=True
            )
        ]
        # Weights at random need no scores.
        drops = [[] for _ in layouts] if mode == "random" else self._drops(out, layouts)
        result = torch.ones(out["completion_ids"].shape, device=out["advantages"].device)
        for row, found in enumerate(layouts):
            if found:
                token_weights = self._weights(found, drops[row], lengths[row], mode)
                result[row, : lengths[row]] = token_weights.to(result.device)
        self._measure(out, layouts, drops, time.perf_counter() - began)
        self.note("importance/weight_variance", (result - 1) ** 2, out["completion_mask"])
        return result

    def _layout(self, ids: list[int]) -> Layout | None:
        if ids and ids[-1] in self.eos_token_ids:
            ids = ids[:-1]
        return layout(
            ids,
            self._tokenizer.decode,
            markers=self._section.answer_markers,
            max_spans=self._section.max_spans,
        )

    def _drops(self, out: Batch, layouts: Sequence[Layout | None]) -> list[list[float]]:
        """For each completion and span by how many nats masking the span makes the answer less
        likely. One batch of all completions, each as it is and with each of its spans masked."""
        drops: list[list[float]] = [[] for _ in layouts]
        scored = {row: found for row, found in enumerate(layouts) if found and found.spans}
        if not scored:
            return drops
        prompt, completion = out["prompt_ids"].size(1), out["completion_ids"].size(1)
        ids, attention = sequences(out)
        cuts = [
            (row, start, end)
            for row, found in scored.items()
            for start, end in ((0, 0), *found.spans)
        ]
        rows = [row for row, _, _ in cuts]
        variants = ids[rows]
        for variant, (_, start, end) in zip(variants, cuts, strict=True):
            variant[prompt + start : prompt + end] = self._mask_id()
        logps = token_logps(self, variants, attention[rows], completion, grouped=True)
        first = 0
        for row, found in scored.items():
            last = first + 1 + len(found.spans)
            answer = logps[first:last, slice(*found.answer)].double().sum(1)
            drops[row] = (answer[0] - answer[1:]).tolist()
            first = last
        return drops

    def _mask_id(self) -> int:
        pad = self._tokenizer.pad_token_id
        return int(self._tokenizer.eos_token_id if pad is None else pad)

    def _weights(self, found: Layout, drops: Sequence[float], length: int, mode: Mode) -> Tensor:
        section, reasoning = self._section, found.answer[0]
        spans = found.spans if drops else ()
        scaled = normalised(importance(reasoning, spans, drops, credit=section.span_credit))
        return weights(
            chosen(scaled, mode),
            length,
            boost=section.boost,
            min_weight=section.min_weight,
            answer_weight=section.answer_weight,
            formatting=torch.tensor(found.formatting),
        )

    def _measure(
        self,
        out: Batch,
        layouts: Sequence[Layout | None],
        drops: Sequence[Sequence[float]],
        seconds: float,
    ) -> None:
        """Log what was found, over all processes. Completions without an advantage are not
        looked at, so they count for nothing."""
        every = [drop for row in drops for drop in row]
        counts = [
            int(out["advantages"].count_nonzero()),
            sum(found is not None for found in layouts),
            sum(len(found.spans) for found in layouts if found),
            len(every),
            sum(every),
            sum(drop < 0 for drop in every),
            seconds,
        ]
        looked, answered, spans, masked, dropped, negative, took = self.total(
            torch.tensor(counts, dtype=torch.float32, device=out["advantages"].device)
        ).tolist()
        measured = {"seconds": took / self.accelerator.num_processes}
        if looked:
            measured |= {"with_answer": answered / looked, "spans": spans / looked}
        if masked:
            measured |= {"drop": dropped / masked, "negative_drops": negative / masked}
        self.record("importance", measured)
