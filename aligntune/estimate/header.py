"""The dimensions of the model in a GGUF file, from its header alone.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from aligntune.estimate.shape import Shape

_NUMBERS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_MOST = 1_000_000
"""More entries than any model has: what says so is no GGUF file."""


def read_gguf(path: Path) -> Shape | None:
    """The dimensions of the model in a GGUF file; None where they cannot be read."""
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as bytes_:
            facts, tensors = _Reader(bytes_).all()
    except (OSError, ValueError, struct.error, KeyError):
        return None
    return _shape(facts, tensors)


def _shape(facts: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> Shape | None:
    family = str(facts.get("general.architecture"))
    heads = facts.get(f"{family}.attention.head_count")
    names = {"embedding": "token_embd", "query": "blk.0.attn_q", "key": "blk.0.attn_k"}
    found = {name: tensors.get(f"{tensor}.weight") for name, tensor in names.items()}
    up = tensors.get("blk.0.ffn_up.weight")
    embedding, query, key = found["embedding"], found["query"], found["key"]
    if not (isinstance(heads, int) and heads and embedding and query and key and up):
        return None
    head_dim = query[1] // heads
    return Shape(
        hidden=embedding[0],
        layers=sum(name.endswith(".attn_q.weight") for name in tensors),
        heads=heads,
        kv_heads=key[1] // head_dim,
        head_dim=head_dim,
        intermediate=up[1],
        vocab=embedding[1],
        tied="output.weight" not in tensors,
        gated="blk.0.ffn_gate.weight" in tensors,
        longest=facts.get(f"{family}.context_length"),
        family=family,
    )


class _Reader:
    def __init__(self, file: mmap) -> None:
        self._file, self._at = file, 0

    def all(self) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
        """Numbers and texts by key, and dimensions by tensor.

        Raises:
            ValueError, struct.error, KeyError: it is no GGUF file.
        """
        magic, version, tensors, pairs = struct.unpack_from("<4sIQQ", self._file)
        if magic != b"GGUF" or version < 2 or max(tensors, pairs) > _MOST:
            raise ValueError("no GGUF file")
        self._at = struct.calcsize("<4sIQQ")
        facts = dict(self._fact() for _ in range(pairs))
        return facts, dict(self._tensor() for _ in range(tensors))

    def _fact(self) -> tuple[str, Any]:
        return self._text(), self._value(self._number("<I"))

    def _tensor(self) -> tuple[str, tuple[int, ...]]:
        name, count = self._text(), self._number("<I")
        shape = tuple(self._number("<Q") for _ in range(count))
        self._at += struct.calcsize("<IQ")  # its type, and where it is
        return name, shape

    def _value(self, kind: int) -> Any:
        """A number or a text; None for a list, which is passed over."""
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._number(_NUMBERS[kind])
        inner, count = self._number("<I"), self._number("<Q")
        if inner in _NUMBERS:
            self._at += count * struct.calcsize(_NUMBERS[inner])
            return None
        for _ in range(count):
            if inner == _STRING:
                self._skip()
            else:
                self._value(inner)
        return None

    def _skip(self) -> None:
        length = self._number("<Q")
        self._at += length

    def _text(self) -> str:
        length = self._number("<Q")
        start, self._at = self._at, self._at + length
        return self._file[start : self._at].decode("utf-8", "replace")

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._file, self._at)
        self._at += struct.calcsize(form)
        return value
