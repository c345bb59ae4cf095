"""The algorithms by name, and which settings each of them has."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator

from aligntune.config.data import TaskType

Algo = Literal[
    "sft",
    "dpo",
    "ppo",
    "grpo",
    "gspo",
    "dapo",
    "dr-grpo",
    "gbmpo",
    "counterfactual-grpo",
    "bolt",
]
ALGOS: tuple[Algo, ...] = get_args(Algo)
Trained = Algo | Literal["reward"]
"""What a training stage can be: an algorithm, or a reward model for one."""
GROUP: frozenset[Algo] = frozenset(ALGOS) - {"sft", "dpo", "ppo"}
"""The GRPO family: advantages come from comparing answers, not from a critic."""
ONLINE: frozenset[Algo] = GROUP | {"ppo"}
"""Those that learn from answers of their own, which rewards judge."""
COMPARED: frozenset[Algo] = ONLINE | {"dpo"}
"""Those that learn from how log-probabilities have changed, and so have no dropout."""

TASK: dict[Trained, TaskType] = {
    **dict.fromkeys(ONLINE, "prompt"),
    "sft": "conversation",
    "dpo": "preference",
    "reward": "preference",
}
"""The canonical rows that each algorithm learns from; a reward model that is regressed on scores
reads conversations."""

SPELLINGS: dict[str, Algo] = {
    "drgrpo": "dr-grpo",
    "counterfactualgrpo": "counterfactual-grpo",
    "counterfactgrpo": "counterfactual-grpo",
    "counterfactual": "counterfactual-grpo",
    "cfgrpo": "counterfactual-grpo",
    "pace": "bolt",
    **{name.replace("-", ""): name for name in ALGOS},
}
"""Other common names, in small letters and without `-`, `_`, `.` and spaces."""


def named(value: Any) -> Any:
    """The algorithm that `value` names in any common spelling, or else `value` itself."""
    if not isinstance(value, str):
        return value
    letters = value.strip().lower().translate(str.maketrans("", "", "-_. "))
    return SPELLINGS.get(letters, value)


AlgoField = Annotated[Algo, BeforeValidator(named)]
