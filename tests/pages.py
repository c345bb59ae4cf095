"""What a page must not do with texts, and a parser's view of a page."""

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from html.parser import HTMLParser
from typing import Any

from aligntune.report import words

HOSTILE = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//x.example/x.js></SCRIPT>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<img src='http://x.example/pixel.gif'>",
    "<IMG SRC=`javascript:alert(1)`>",
    '"><img src=x onerror=alert(1)>',
    "'><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "` onmouseover=`alert(1)",
    "<svg onload=alert(1)>",
    "<svg><animate onbegin=alert(1) attributeName=x></svg>",
    "<svg><a xlink:href='javascript:alert(1)'><text>x</text></a></svg>",
    "<math><mi xlink:href='javascript:alert(1)'>x</mi></math>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data=x.swf></object>",
    "<link rel=stylesheet href=//x.example/x.css>",
    "<style>*{background:url(//x.example)}</style>",
    "</style><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</pre></details><script>alert(1)</script>",
    "<!--><script>alert(1)</script-->",
    "--><script>alert(1)</script>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?xml version='1.0'?><script>alert(1)</script>",
    "<meta http-equiv=refresh content='0;url=//x.example'>",
    "<base href=//x.example/>",
    "<form action=//x.example><button>go</button></form>",
    "<details open ontoggle=alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "javascript:alert(1)",
    "  javascript:alert(1)",
    "java\tscript:alert(1)",
    "java\nscript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "//x.example/x",
    'https://x.example/" onclick="alert(1)',
    "http://x.example/<script>alert(1)</script>",
    "https://x.example/\njavascript:alert(1)",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}${7*7}#{7*7}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#x3c;script&#x3e;alert(1)&#x3c;/script&#x3e;",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "\x00<script>alert(1)</script>",
    "<\x00script>alert(1)</script>",
    "\ud800<script>alert(1)</script>",
    "\u202e<script>alert(1)</script>",
    "\uff1cscript\uff1ealert(1)\uff1c/script\uff1e",
    "![x](javascript:alert(1)) [x](javascript:alert(1)) ```</code>",
]


class Page(HTMLParser):
    """What a parser makes of a page: its elements with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.oddities: list[str] = []
        self._text: list[str] = []
        self.feed(html)
        self.close()
        text = "".join(self._text).replace(words.SPACE, " ").replace(words.MINUS, "-")
        self.text = re.sub(r"\s+", " ", text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._text.append(" ")

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    def handle_comment(self, data: str) -> None:
        self.oddities.append(data)

    handle_pi = unknown_decl = handle_comment

    def links(self) -> list[str]:
        return [attrs["href"] or "" for tag, attrs in self.elements if tag == "a"]

    def skeleton(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(sorted(attrs))) for tag, attrs in self.elements]


def filled_with(value: Any, text: str) -> Any:
    """`value` with every string in it, keys of mappings too, replaced by `text`."""
    if isinstance(value, str):
        return text
    if isinstance(value, Mapping):
        # Canonical messages have fixed keys; the other mappings are keyed by names from outside.
        fixed = "role" in value or "invalid" in value
        return {
            k if fixed or not isinstance(k, str) else text: filled_with(v, text)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(filled_with(item, text) for item in value)
    if is_dataclass(value):
        changed = {f.name: filled_with(getattr(value, f.name), text) for f in fields(value)}
        return type(value)(**changed)
    return value
