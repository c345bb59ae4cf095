"""How far a model has moved from the one that its training started from."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from aligntune.evaluate.forward import Tick
from aligntune.evaluate.generate import Answer, prompt_tokens
from aligntune.evaluate.likelihood import Completion, token_log_probs
from aligntune.evaluate.types import Row, Subject, prompt_of
from aligntune.models.load import load_policy


def kl_to_base(
    subject: Subject, rows: Sequence[Row], answers: Sequence[Answer | None], progress: Tick
) -> list[float | None]:
    """The k3 estimate of KL(model, base) along the model's own answer, in nats per token of it.

    Both see the very tokens that were generated. The answers are the likeliest ones and no
    samples, so this tells models apart and is not the divergence of training. Only one of the two
    models is on the GPU at a time.
    """
    assert subject.reference is not None, "chosen only where there is one"
    prompts = prompt_tokens(
        subject.tokenizer, [prompt_of(row) for row in rows], [row.get("tools") for row in rows]
    )
    answered = [index for index, answer in enumerate(answers) if answer and answer.ids]
    written = [
        Completion((*prompts[index], *found.ids), len(prompts[index]))
        for index in answered
        if (found := answers[index])
    ]
    device = subject.model.device
    own = token_log_probs(subject, written, lambda done, total: progress(done, 2 * total))
    subject.model.to(torch.device("cpu"))
    base = load_policy(subject.reference, trust_remote_code=subject.trust_remote_code).to(device)
    other = Subject(
        base, subject.tokenizer, subject.precision, subject.batch_size, subject.max_length
    )
    theirs = token_log_probs(other, written, lambda done, total: progress(total + done, 2 * total))
    del base, other
    subject.model.to(device)
    distances = dict(zip(answered, map(_k3, own, theirs), strict=True))
    return [distances.get(index) for index in range(len(rows))]


def _k3(own: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """The mean over tokens of q/p - 1 - ln(q/p), which is never negative."""
    ratio = theirs - own
    return float(np.mean(np.expm1(np.minimum(ratio, 50.0)) - ratio))
