"""Chat templates: which one a model gets, and whether it renders a conversation."""

import os
from pathlib import Path
from typing import Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from aligntune.errors import ConfigError

Origin = Literal["model", "config", "default"]

PLAIN = """\
{%- for message in messages -%}
    {%- if not loop.first %}{{ '\\n' }}{% endif -%}
    {%- if message['role'] == 'system' -%}
        {{ message['content'] }}
    {%- elif message['role'] == 'user' -%}
        {{ 'User: ' + message['content'] }}
    {%- elif message['role'] == 'assistant' -%}
        {{ 'Assistant: ' + message['content'] + eos_token }}
    {%- else -%}
        {{ raise_exception('unknown role: ' + message['role']) }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '\\nAssistant:' }}{% endif -%}
"""
"""For a model without a template. Needs no token but the end of sequence, and ends there.

The generation prompt has no space after its colon: byte-level BPE puts the space into the answer's
first token, so a prompt's tokens are a prefix of the whole conversation's.
"""
CONVERSATION = [
    {"role": "user", "content": "first question"},
    {"role": "assistant", "content": "first answer"},
    {"role": "user", "content": "second question"},
]


def install(tokenizer: PreTrainedTokenizerBase, chosen: str | None) -> Origin:
    """Give `tokenizer` its chat template, checked, and say where that came from.

    `chosen` is a template or the path of a file with one; None keeps the model's own, and gives a
    plain one to a model that has none.
    """
    origin: Origin = "model"
    if chosen is not None:
        tokenizer.chat_template, origin = _read(chosen), "config"
    elif not tokenizer.chat_template:
        tokenizer.chat_template, origin = _plain_for(tokenizer), "default"
    _check(tokenizer, origin)
    return origin


def render(tokenizer: PreTrainedTokenizerBase) -> str:
    """A short conversation as the model will see it, up to the answer it is to give."""
    text = tokenizer.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
    return str(text)


def _read(chosen: str) -> str:
    if "{" in chosen:
        return chosen
    path = Path(os.path.expanduser(chosen))
    if not path.is_file():
        raise ConfigError(
            f"model.chat_template {chosen!r} is neither a Jinja template (it has no '{{') nor an "
            "existing file"
        )
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"model.chat_template {chosen!r} is not UTF-8 text: {error}") from None


def _plain_for(tokenizer: PreTrainedTokenizerBase) -> str:
    """The plain template, with a start token for a tokenizer that would add one by itself."""
    starts = tokenizer.bos_token_id is not None and (
        tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
    )
    return "{{- bos_token -}}\n" + PLAIN if starts else PLAIN


def _check(tokenizer: PreTrainedTokenizerBase, origin: Origin) -> None:
    remedy = "correct it" if origin == "config" else "set model.chat_template"
    try:
        text = render(tokenizer)
    # A template can do arithmetic, so it fails in every way that arithmetic and look-ups can.
    except (
        TemplateError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise ConfigError(
            f"the chat template ({origin}) does not render a user, assistant, user conversation: "
            f"{type(error).__name__}: {error}; {remedy}"
        ) from error
    for message in CONVERSATION:
        if message["content"] not in text:
            raise ConfigError(
                f"the chat template ({origin}) loses the {message['role']}'s {message['content']!r}"
                f" from {text!r}; {remedy}"
            )
