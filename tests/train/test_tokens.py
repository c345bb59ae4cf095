"""Tokens that the data stage makes once are those that TRL's trainers would have made."""

import json

import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from offline import make, spec
from places import place
from tokens import trained_on, write_split
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from aligntune.data import tokens
from aligntune.data.rows import BATCH
from aligntune.data.tokens import Tokens, check_known, longest, pack, tokenized
from aligntune.errors import DataError
from aligntune.models.load import load_policy, load_tokenizer
from aligntune.train.rows import LENGTH, asked, fitting, training_rows

TURNS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "say red"},
    {"role": "assistant", "content": "red it is"},
    {"role": "user", "content": "and blue?"},
    {"role": "assistant", "content": "blue"},
]
CUT = [{"role": "user", "content": "red " * 20}, {"role": "assistant", "content": "sun " * 60}]
LOST = [{"role": "user", "content": "red " * 80}, {"role": "assistant", "content": "sun"}]
CHATS = [TURNS, TURNS[1:3], CUT, LOST]
PAIRS = [
    {
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": "yes"}],
        "rejected": [{"role": "assistant", "content": "no, never"}],
    }
    for prompt in (TURNS[:2], TURNS[:4], LOST[:1])
]


def trl(kind, config, path, rows, folder, **settings):
    """The rows as TRL's own trainer prepares them."""
    plain = {"max_length": 64, "report_to": [], "use_cpu": True}
    arguments = config(output_dir=str(folder), **plain, **settings)
    trainer = kind(
        model=load_policy(path, trust_remote_code=False),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(path),
    )
    return trainer.train_dataset


@pytest.mark.parametrize("packing", [False, True])
def test_sft_learns_from_the_same_tokens_and_labels(tiny_model, tmp_path, packing):
    turns = [
        {"prompt": messages[:turn], "completion": messages[turn : turn + 1]}
        for messages in CHATS
        for turn, message in enumerate(messages)
        if message["role"] == "assistant"
    ]
    expected = trl(
        SFTTrainer, SFTConfig, tiny_model, turns, tmp_path / "trl", packing=packing, seed=1
    )
    rows = [{"messages": messages} for messages in CHATS]
    own = make(tiny_model, spec(packing=packing), place(tmp_path / "own"), rows).train_dataset
    for column in ("input_ids", "labels"):
        assert own[column][:] == expected[column][:]
    assert len(own) == (len(own) if packing else 4)


def test_dpo_learns_from_the_same_tokens(tiny_model, tmp_path):
    expected = trl(DPOTrainer, DPOConfig, tiny_model, PAIRS, tmp_path / "trl")
    own = make(tiny_model, spec("dpo"), place(tmp_path / "own"), PAIRS).train_dataset
    assert len(own) == 2
    for column in ("prompt_ids", "chosen_ids", "rejected_ids"):
        assert own[column][:] == expected[column][:]


def test_plain_text_is_learned_as_it_is(tiny_model):
    rows = [{"messages": [{"role": "assistant", "content": "red blue"}]}]
    (made,) = trained_on(rows, spec(), tiny_model)
    tokenizer = load_tokenizer(tiny_model)
    assert tokenizer.decode(made["input_ids"]) == f"red blue{tokenizer.eos_token}"
    assert set(made["completion_mask"]) == {1}


def test_lengths_of_prompts_are_known_without_tokenising_again(tiny_model, tmp_path):
    rows = [{"prompt": TURNS[:2], "extra": '{"level": 3}'}, {"prompt": LOST[:1]}]
    folder = write_split(tmp_path / "data", rows, "prompt", tiny_model)
    made = asked(
        pq.read_table(folder / "train.parquet"), tokens.read(folder / "train.tokens.parquet")
    )
    tokenizer = load_tokenizer(tiny_model)
    lengths = [
        len(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"])
        for row in rows
    ]
    assert made[LENGTH][:] == lengths
    (short,) = fitting(made, lengths[0])
    assert short == {"prompt": TURNS[:2], "extra": '{"level": 3}'}
    assert len(fitting(made, lengths[0] - 1)) == 0


def test_a_template_that_refuses_a_row_says_so_for_that_row(tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    refused, fine = tokenized([{"messages": TURNS}, {"messages": TURNS[1:3]}], "conversation",
                              tokenizer)  # fmt: skip
    assert "refuses a conversation of system, user: no system" in refused
    assert longest(fine) > 0


def test_tools_and_calls_reach_the_template(tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = (
        "{% for t in tools or [] %}<{{ t.function.name }}>{% endfor %}"
        "{% for m in messages %}{{ m.role }}:{{ m.thinking }}{{ m.weight }}{{ m.content }}"
        "{% for c in m.tool_calls or [] %}[{{ c.function.name }}{{ c.function.arguments.x }}]"
        "{% endfor %}\n{% endfor %}"
    )
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": "blue"}}}
    row = {
        "messages": [
            {"role": "user", "content": "red"},
            {
                "role": "assistant",
                "content": "",
                "thinking": "green",
                "weight": "1",
                "tool_calls": json.dumps([call]),
            },
        ],
        "tools": json.dumps([{"type": "function", "function": {"name": "sun"}}]),
    }
    ((made,),) = tokenized([row], "conversation", tokenizer)
    text = tokenizer.decode(made.ids)
    assert "sun" in text
    assert "blue" in text
    assert "green" in text
    assert "1" not in text


def test_a_template_without_a_place_for_calls_does_not_teach_silence(tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    call = {"type": "function", "function": {"name": "red", "arguments": {}}}
    silent = {"role": "assistant", "content": "red", "tool_calls": json.dumps([call])}
    prompt = [{"role": "user", "content": "red"}]
    (lost,) = tokenized([{"messages": [*prompt, silent]}], "conversation", tokenizer)
    assert "leaves out calls of tools" in lost
    pair = {"prompt": prompt, "chosen": [silent], "rejected": TURNS[2:3]}
    (lost,) = tokenized([pair], "preference", tokenizer)
    assert "leaves out calls of tools" in lost


def test_without_tokens_there_is_nothing_to_train_on(tiny_model, tmp_path):
    folder = write_split(tmp_path / "data", PAIRS, "preference", tiny_model)
    (folder / "train.tokens.parquet").unlink()
    with pytest.raises(DataError, match=r"train\.tokens\.parquet is missing"):
        training_rows(folder, "train", spec("dpo"))


def test_plain_text_starts_as_the_tokenizer_starts_it(tiny_model):
    from tokenizers.processors import TemplateProcessing

    text = {"messages": [{"role": "assistant", "content": "red it is"}]}
    tokenizer = load_tokenizer(tiny_model)
    ((plain,),) = tokenized([text], "conversation", tokenizer)
    tokenizer = load_tokenizer(tiny_model)
    first = tokenizer.bos_token or "<|endoftext|>"
    tokenizer.bos_token = first
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, tokenizer.convert_tokens_to_ids(first))]
    )
    ((started,),) = tokenized([text], "conversation", tokenizer)
    assert started.ids == [tokenizer.bos_token_id, *plain.ids]


def test_a_template_that_breaks_on_a_row_is_that_rows_fault(tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = "{{ messages[0]['content'] + 1 }}"
    (found,) = tokenized([{"messages": TURNS}], "conversation", tokenizer)
    assert "the model's chat template refuses" in found


def test_what_is_known_of_the_highest_token_takes_no_reading_of_rows(
    tmp_path, tiny_model, monkeypatch
):
    file, tokenizer = tmp_path / "train.tokens.parquet", load_tokenizer(tiny_model)
    plain = [pack([Tokens([1, 2], 900)])] * BATCH
    tokens.write(file, [*plain, pack([]), pack([Tokens([], 0), Tokens([5, 77], 1)])])
    monkeypatch.setattr(pq, "read_table", lambda _: pytest.fail("a million rows are gigabytes"))
    check_known(file, tokenizer, 78)
    with pytest.raises(DataError, match=r"the train rows .* its id is 77, and there are 77;"):
        check_known(file, tokenizer, 77)
    tokens.write(file, [])
    check_known(file, tokenizer, 0)
