"""Texts that begin alike get the ids that each of them would get by itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CORPUS, build_tokenizer
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from aligntune.data.encode import _marks, encoded
from aligntune.data.tokens import tokenized


def sentencepiece_like(*added, normalizer=None, unknown="<unk>"):
    """Words begin with a mark of their own, the first one of a text too."""
    made = Tokenizer(models.BPE(unk_token=unknown))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    if normalizer:
        made.normalizer = normalizer
    special = [unknown, "<s>", "</s>"]
    made.train_from_iterator([CORPUS], trainers.BpeTrainer(vocab_size=200, special_tokens=special))
    made.add_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token=unknown, eos_token="</s>")


TOKENIZERS = {
    "byte level": build_tokenizer(vocab_size=400, context=512),
    "metaspace": sentencepiece_like(),
    "prepend": sentencepiece_like(normalizer=normalizers.Prepend("_")),
    "makes marks": sentencepiece_like(normalizer=normalizers.Replace("[s]", "<s>")),
    "normalized": sentencepiece_like(AddedToken("Sum", normalized=True)),
    "takes spaces": sentencepiece_like(AddedToken("<x>", normalized=False, rstrip=True)),
    "one in another": sentencepiece_like(AddedToken("the cat<s>a", normalized=False)),
}
MARKS = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<s>",
    "</s>",
    "<unk>",
    "<x>",
    "<s>a",
    "[s]",
]
PIECES = st.sampled_from(
    [
        *MARKS,
        "sum",
        "Sum",
        "the cat",
        " ",
        "  ",
        "\n",
        "\n\n",
        "a",
        "<",
        "|im_end|>",
        "é",
        "한",
        "1",
    ]
)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(
    pieces=st.lists(PIECES, max_size=12), cuts=st.lists(st.integers(0, 12), max_size=4), end=PIECES
)
@settings(deadline=None)
def test_every_text_has_its_own_ids(name, pieces, cuts, end):
    tokenizer = TOKENIZERS[name]
    rows = [["".join(pieces), *("".join(pieces[:cut]) + end * (cut % 2) for cut in cuts)]]
    for text, ids in encoded(rows, tokenizer).items():
        assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", ["normalized", "takes spaces", "one in another"])
def test_tokenizers_whose_marks_depend_on_what_is_around_them_share_nothing(name):
    assert _marks(TOKENIZERS[name]) is None
    assert _marks(TOKENIZERS["metaspace"])


def dialogue(turns):
    return {
        "messages": [
            {"role": "user" if turn % 2 == 0 else "assistant", "content": f"turn {turn} of the cat"}
            for turn in range(turns)
        ]
    }


@pytest.mark.parametrize("task", ["conversation", "preference"])
def test_a_row_has_the_sequences_that_its_texts_one_by_one_make(monkeypatch, task):
    tokenizer, rows = TOKENIZERS["byte level"], [dialogue(turns) for turns in (2, 8, 6)]
    if task == "preference":
        rows = [
            {
                "prompt": row["messages"][:-1],
                "chosen": row["messages"][-1:],
                "rejected": [{"role": "assistant", "content": "turn 1 of the dog"}],
            }
            for row in rows
        ]
    shared = tokenized(rows, task, tokenizer)
    monkeypatch.setattr("aligntune.data.encode._marks", lambda tokenizer: None)
    assert tokenized(rows, task, tokenizer) == shared


def test_a_long_dialogue_is_encoded_once_and_not_once_per_answer(monkeypatch):
    tokenizer, encoded_characters = TOKENIZERS["byte level"], []
    call = type(tokenizer).__call__

    def counting(self, texts, **options):
        encoded_characters.append(sum(map(len, texts)))
        return call(self, texts, **options)

    monkeypatch.setattr(type(tokenizer), "__call__", counting)
    for turns in (8, 16):
        tokenized([dialogue(turns)], "conversation", tokenizer)
    short, long = encoded_characters
    assert long < 2.2 * short
