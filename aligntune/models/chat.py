"""Canonical messages in a model's chat template."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from aligntune.errors import DataError

Message = Mapping[str, str]
Messages = Sequence[Message]


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Iterable[Message],
    *,
    to_answer: bool,
    tools: str | None = None,
) -> str:
    """`messages` in the chat template, up to the start of an answer if `to_answer`.

    `tools` is JSON, as canonical rows have it.

    Raises:
        DataError: the template refuses them.
    """
    spoken = [speech(message) for message in messages]
    try:
        text = tokenizer.apply_chat_template(
            spoken,
            tools=json.loads(tools) if tools else None,
            tokenize=False,
            add_generation_prompt=to_answer,
        )
    except (TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
        roles = ", ".join(message["role"] for message in spoken)
        raise DataError(
            f"the model's chat template refuses a conversation of {roles}: {error}; drop such rows "
            "or set model.chat_template"
        ) from error
    return str(text)


def speech(message: Message) -> dict[str, Any]:
    """A canonical message as templates want it: tool calls as objects and not as JSON, and nothing
    that is not there."""
    spoken: dict[str, Any] = {
        name: value for name, value in message.items() if value is not None and name != "weight"
    }
    if "tool_calls" in spoken:
        spoken["tool_calls"] = json.loads(spoken["tool_calls"])
    return spoken


def is_text(messages: Sequence[Message]) -> bool:
    """Whether it is plain text, which is in no template: an answer to nothing."""
    return len(messages) == 1 and messages[0]["role"] == "assistant"
