"""A language model's dimensions, and what they say of its size."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "config.json"
_NAMES = {
    "hidden": ("hidden_size", "n_embd", "d_model", "dim"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "vocab": ("vocab_size",),
    "intermediate": ("intermediate_size", "n_inner", "ffn_dim", "d_ff", "ffn_hidden_size"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "head_dim": ("head_dim",),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "experts_used": ("num_experts_per_tok",),
}
"""What transformers' configs call each dimension."""
_PLAIN = {
    *("gpt2", "gpt_neox", "gpt_neo", "gptj", "gpt_bigcode", "codegen", "opt", "bloom", "mpt"),
    *("falcon", "phi", "starcoder2"),
}
"""Families whose layers have two feed-forward matrices and no gate."""
_GEMMA = {"gemma", "gemma2", "gemma3", "gemma3_text"}
_TIED = _PLAIN - {"gpt_neox", "gptj", "codegen", "phi"} | _GEMMA | {"cohere"}
"""Families whose output layer is the embedding where the config does not say."""
_LEARNED = {"gpt2": 0, "gpt_neo": 0, "gpt_bigcode": 0, "opt": 2}
"""Families with a vector per position -> how many more than positions."""
_BIASED = {"gpt2", "gpt_neox", "gpt_bigcode", "opt", "bloom", "phi", "starcoder2"}
"""Families whose linear layers all have a bias."""
_QKV_BIASED = {"qwen2", "qwen2_moe"}
_FOUR_NORMS = _GEMMA - {"gemma"}
"""Families with a norm before and after both halves of a layer."""


@dataclass(frozen=True)
class Shape:
    """The dimensions of a decoder-only transformer."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    """Of one expert, where there are experts."""
    vocab: int
    tied: bool = True
    """Whether the output layer is the embedding."""
    gated: bool = True
    experts: int = 0
    experts_used: int = 0
    """That compute each token."""
    positions: int = 0
    """Learned vectors of positions; rotary ones have none."""
    longest: int | None = None
    """Tokens that the model can see; None where its config does not say."""
    family: str = "llama"

    @property
    def queries(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads together; that of the values is the same."""
        return self.kv_heads * self.head_dim

    @property
    def matrices(self) -> Sequence[tuple[str, int, int, int]]:
        """The linear layers of one layer as (name, inputs, outputs, how many of them)."""
        hidden, inner = self.hidden, self.intermediate
        if self.family == "gpt2":
            return (
                ("c_attn", hidden, 3 * hidden, 1),
                ("c_proj", hidden, hidden, 1),
                ("c_fc", hidden, inner, 1),
                ("c_proj", inner, hidden, 1),
            )
        experts = max(self.experts, 1)
        return (
            ("q_proj", hidden, self.queries, 1),
            ("k_proj", hidden, self.keys, 1),
            ("v_proj", hidden, self.keys, 1),
            ("o_proj", self.queries, hidden, 1),
            ("up_proj", hidden, inner, experts),
            ("down_proj", inner, hidden, experts),
            *((("gate_proj", hidden, inner, experts),) if self.gated else ()),
            *((("gate", hidden, self.experts, 1),) if self.experts else ()),
        )

    @property
    def linear(self) -> int:
        """Parameters of the linear layers of all layers, without the output layer."""
        return self.layers * sum(i * o * n for _, i, o, n in self.matrices)

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of the output layer where that is another."""
        return self.vocab * self.hidden * (1 if self.tied else 2) + self.positions * self.hidden

    @property
    def parameters(self) -> int:
        return self.linear + self.embedding + self._small

    @property
    def active(self) -> int:
        """Parameters that each token is multiplied with: matrices of the experts it sees, and the
        output layer."""
        idle = 1 - self.experts_used / self.experts if self.experts else 0
        ffn = self.layers * (3 if self.gated else 2) * self.hidden * self.intermediate
        return int(self.linear - ffn * self.experts * idle) + self.vocab * self.hidden

    def adapter(self, rank: int, targets: str | tuple[str, ...]) -> int:
        """Parameters of LoRA of this rank on these layers. Names that are not known count as if
        they were all."""
        chosen = list(self.matrices)
        if not isinstance(targets, str) and set(targets) <= {name for name, *_ in chosen}:
            chosen = [each for each in chosen if each[0] in targets]
        return self.layers * rank * sum((i + o) * n for _, i, o, n in chosen)

    @property
    def _small(self) -> int:
        """Norms and biases."""
        norms = 4 if self.family in _FOUR_NORMS else 2
        twice = 2 if self.family in _BIASED else 1  # LayerNorm has a bias
        small = self.layers * norms * self.hidden * twice + self.hidden * twice
        if self.family in _BIASED:
            small += self.layers * (self.queries + 2 * self.keys + 2 * self.hidden)
            small += self.layers * self.intermediate
        if self.family in _QKV_BIASED:
            small += self.layers * (self.queries + 2 * self.keys)
        if self.family in ("qwen3", "qwen3_moe"):
            small += self.layers * 2 * self.head_dim
        return small


def read_shape(model: Path) -> Shape | None:
    """The dimensions of the model in a directory, of its `config.json`; None where they are not
    known."""
    try:
        config = json.loads((model / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return shape_of(config) if isinstance(config, dict) else None


def shape_of(config: Mapping[str, Any]) -> Shape | None:
    """The dimensions that a model's config says; None where it is not that of a transformer as
    they are known here."""
    config = config.get("text_config") or config
    family = str(config.get("model_type", "llama"))
    found = {name: _first(config, keys) for name, keys in _NAMES.items()}
    hidden, layers, heads, vocab = (found[n] for n in ("hidden", "layers", "heads", "vocab"))
    if not (hidden and layers and heads and vocab):
        return None
    experts = found["experts"] or 0
    narrow = config.get("moe_intermediate_size") if experts else None
    positions = _first(config, ("max_position_embeddings", "n_positions"))
    learned = (positions or 0) + _LEARNED[family] if family in _LEARNED else 0
    # Falcon and StarCoder: one key head for all, whatever else their configs count.
    one = config.get("multi_query") and not config.get("new_decoder_architecture")
    return Shape(
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=1 if one else found["kv_heads"] or heads,
        head_dim=found["head_dim"] or hidden // heads,
        intermediate=narrow or found["intermediate"] or 4 * hidden,
        vocab=vocab,
        tied=bool(config.get("tie_word_embeddings", family in _TIED)),
        gated=family not in _PLAIN,
        experts=experts,
        experts_used=(found["experts_used"] or 0) if experts else 0,
        positions=learned,
        longest=positions,
        family=family,
    )


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    return next(_values(config, keys), None)


def _values(config: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[int]:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and value > 0:
            yield value
