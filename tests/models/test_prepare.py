"""A model from any source becomes one complete directory, or an error that says why not."""

import json
import resource
import shutil

import pytest
from loopback_hub import LoopbackHub
from manifests import manifest
from tiny import CHATML, build_tiny_model

from aligntune.artifacts import LINKED, commit, find, partial
from aligntune.errors import ConfigError, ResourceError
from aligntune.models.load import load_policy, load_tokenizer
from aligntune.models.prepare import prepare
from aligntune.models.source import locate

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "2+2?"},
]
STRINGS = ("bos_token", "eos_token", "pad_token", "unk_token")


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A copy of the tiny model to change."""
    return shutil.copytree(tiny_model, tmp_path / "source")


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """A model whose weights are large enough to be linked."""
    return build_tiny_model(tmp_path_factory.mktemp("larger") / "model", hidden_size=256)


def edit(path, *removed, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if k not in removed}))


def prepared(folder, *, chat_template=None, trust=False):
    out = folder.parent / "out" / "model"
    facts = prepare(locate(str(folder)), out, chat_template=chat_template, trust_remote_code=trust)
    return out, facts


def refused(folder, *words, **settings):
    with pytest.raises(ConfigError) as caught:
        prepared(folder, **settings)
    for word in words:
        assert word in str(caught.value)


def test_a_complete_directory_is_taken_as_it_is(tiny_model, tmp_path):
    out = tmp_path / "model"
    facts = prepare(locate(str(tiny_model)), out, chat_template=None, trust_remote_code=False)
    assert {p.name for p in out.iterdir()} == {p.name for p in tiny_model.iterdir()}
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"):
        assert (out / name).read_bytes() == (tiny_model / name).read_bytes()
    model = load_policy(out, trust_remote_code=False)
    assert facts.pop("chat_template_sha256")
    assert facts == {
        "parameters": sum(p.numel() for p in model.parameters()),
        "model_type": "llama",
        "vocab_size": 400,
        "context_length": 512,
        "chat_template": "model",
    }


def test_weights_of_a_finished_artifact_are_linked_and_those_of_others_copied(larger, tmp_path):
    stages = tmp_path / "stages"
    folder = shutil.copytree(larger, partial(stages, "sft", "k") / "model")
    with (folder / "tokenizer.json").open("a") as file:
        file.write(" " * LINKED)  # as large as real ones are, which are rewritten in place
    made = commit(stages / "sft-k.partial", manifest("sft", "k"))
    (tmp_path / "run").symlink_to(made.path / "model")
    for source, ours in ((tmp_path / "run", True), (larger, False)):
        out = tmp_path / f"out-{ours}"
        prepare(locate(str(source)), out, chat_template=CHATML + "{# #}", trust_remote_code=False)
        for name in ("model.safetensors", "tokenizer.json"):
            shared = (out / name).samefile(source / name)
            assert shared == (ours and name == "model.safetensors")
    assert find(stages, "sft", "k", verify=True)


def test_rewriting_the_original_in_place_leaves_the_artifact_alone(folder):
    weights = folder / "model.safetensors"
    before = weights.read_bytes()
    out, _ = prepared(folder)
    with weights.open("r+b") as file:
        file.write(bytes(len(before)))
    assert (out / "model.safetensors").read_bytes() == before


def test_remains_of_an_earlier_attempt_are_gone(folder):
    stale = folder.parent / "out" / "model"
    stale.mkdir(parents=True)
    (stale / "model-00001-of-00009.safetensors").write_bytes(b"half")
    out, _ = prepared(folder)
    assert not (out / "model-00001-of-00009.safetensors").exists()


def gpt2(folder, *, legacy):
    """A random GPT-2 whose tokenizer has an end token, and nothing else."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shutil.rmtree(folder)
    config = GPT2Config(vocab_size=400, n_positions=64, n_embd=16, n_layer=1, n_head=2,
                        bos_token_id=0, eos_token_id=0)  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    from tiny import build_tokenizer

    tokenizer = build_tokenizer(vocab_size=400, context=64)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    end = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    if legacy:
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
        merges = [" ".join(merge) for merge in model["merges"]]
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
        (folder / "special_tokens_map.json").write_text(json.dumps(end))
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
        (folder / "generation_config.json").unlink()
    else:
        tokenizer.save_pretrained(folder)
        (folder / "chat_template.jinja").unlink()
        edit(folder / "tokenizer_config.json", "pad_token", **end)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_base_model_gets_a_plain_template_and_its_end_token_as_padding(folder, legacy):
    gpt2(folder, legacy=legacy)
    own = load_tokenizer(folder)
    assert (own.chat_template, own.pad_token) == (None, None)
    out, facts = prepared(folder)
    tokenizer = load_tokenizer(out)
    assert facts["chat_template"] == "default"
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|endoftext|>")
    assert (
        tokenizer.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
        == "Be brief.\nUser: Hi\nAssistant: Hello!<|endoftext|>\nUser: 2+2?\nAssistant:"
    )
    text = "Some text,  with 12 things.<|endoftext|> héllo"
    assert tokenizer(text)["input_ids"] == own(text)["input_ids"]
    generation = json.loads((out / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["pad_token_id"]) == (0, 0)


def test_a_plain_prompts_tokens_begin_its_conversation(folder):
    gpt2(folder, legacy=False)
    tokenizer = load_tokenizer(prepared(folder)[0])
    whole = tokenizer.apply_chat_template(CONVERSATION[:3], return_dict=False)
    prompt = tokenizer.apply_chat_template(
        CONVERSATION[:2], add_generation_prompt=True, return_dict=False
    )
    assert whole[: len(prompt)] == prompt
    assert whole[-1] == tokenizer.eos_token_id


def test_a_plain_conversation_starts_as_the_tokenizer_starts_any_text(folder):
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_tokenizer(folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    tokenizer = load_tokenizer(prepared(folder)[0])
    ids = tokenizer.apply_chat_template(CONVERSATION, return_dict=False)
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("as_file", [False, True])
def test_a_chosen_template_replaces_the_models_own(folder, as_file):
    text = "{% for m in messages %}[{{ m.role }}] {{ m.content }}é\n{% endfor %}"
    chosen = text
    if as_file:
        chosen = str(folder.parent / "chat.txt")
        (folder.parent / "chat.txt").write_text(text, encoding="utf-8")
    out, facts = prepared(folder, chat_template=chosen)
    assert facts["chat_template"] == "config"
    rendered = load_tokenizer(out).apply_chat_template(CONVERSATION[:2], tokenize=False)
    assert rendered == "[system] Be brief.é\n[user] Hié\n"
    own = prepared(folder)[1]["chat_template_sha256"]
    assert own != facts["chat_template_sha256"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{% for m in messages %}{{ m.content }}", "TemplateSyntaxError"),
        ("{{ messages[9].content }}", "UndefinedError"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ messages[-1].content }}", "loses the user's 'first question'"),
        ("nowhere.jinja", "nor an existing file"),
        ("", "nor an existing file"),
    ],
)
def test_a_template_that_does_not_render_is_refused(folder, text, why):
    refused(folder, why, chat_template=text)


def test_a_template_file_that_is_not_text_is_refused(folder):
    (folder.parent / "chat.jinja").write_bytes(b"\xff\xfe{{")
    refused(folder, "UTF-8", chat_template=str(folder.parent / "chat.jinja"))


def test_the_models_own_broken_template_is_named_as_such(folder):
    (folder / "chat_template.jinja").write_text("{% if %}")
    refused(folder, "chat template (model)", "set model.chat_template")


def test_a_tokenizer_without_an_end_is_refused(folder):
    edit(folder / "tokenizer_config.json", "eos_token")
    refused(folder, "no end-of-sequence token")


@pytest.mark.parametrize(
    "content",
    [
        {"model_type": "unheard_of"},
        {"model_type": "t5"},
        {},
        {"model_type": "llama", "hidden_size": "big"},
        {"model_type": "llama", "num_attention_heads": 0},
        {"model_type": "llama", "hidden_act": "evil"},
    ],
)
def test_a_config_of_no_causal_language_model_is_refused(folder, content):
    (folder / "config.json").write_text(json.dumps(content))
    refused(folder, "config of", str(folder), "causal language model")


def test_quantized_weights_are_refused(folder):
    edit(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    refused(folder, "quantized")


@pytest.mark.parametrize(
    "content", ["{}", '{"model": {"type": "BPE", "vocab": {}, "merges": ["a b"]}}']
)
def test_a_broken_tokenizer_is_refused(folder, content):
    (folder / "tokenizer.json").write_text(content)
    refused(folder, "tokenizer")


def test_a_tokenizer_of_a_larger_model_is_refused(folder):
    edit(folder / "config.json", vocab_size=100)
    refused(folder, "only 100 embeddings")


def test_weights_that_are_missing_are_not_made_up(folder):
    edit(folder / "config.json", num_hidden_layers=3)
    out, _ = prepared(folder)
    with pytest.raises(ConfigError, match=r"layers\.2\."):
        load_policy(out, trust_remote_code=False)


def test_generation_ends_where_the_chat_template_ends_an_answer(folder):
    edit(folder / "generation_config.json", "pad_token_id", eos_token_id=0, temperature=0.6)
    generation = json.loads((prepared(folder)[0] / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [0, 2]
    assert generation["pad_token_id"] == 0
    assert "temperature" not in generation


def test_sampling_settings_of_a_sampling_model_are_kept(folder):
    edit(folder / "generation_config.json", do_sample=True, temperature=0.6, top_p=0.9)
    generation = json.loads((prepared(folder)[0] / "generation_config.json").read_text())
    assert (generation["temperature"], generation["top_p"]) == (0.6, 0.9)


def test_a_full_disk_is_not_the_configs_fault(folder):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(ResourceError, match="make room"):
            prepared(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_hub_model_is_downloaded_checked_and_left_whole(tiny_model, tmp_path, monkeypatch):
    shutil.copytree(tiny_model, tmp_path / "hub/models/owner/tiny")
    out = tmp_path / "stage" / "model"
    with LoopbackHub(tmp_path / "hub") as hub:
        hub.connect(monkeypatch, tmp_path)
        prepare(locate("owner/tiny"), out, chat_template=None, trust_remote_code=False)
    assert [path.name for path in out.parent.iterdir()] == ["model"]
    assert (out / "model.safetensors").read_bytes() == (
        tiny_model / "model.safetensors"
    ).read_bytes()
    load_policy(out, trust_remote_code=False)


def test_a_hub_model_is_as_suspect_as_a_folder(folder, monkeypatch):
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    tmp_path = folder.parent
    shutil.move(folder, tmp_path / "hub/models/owner/tiny")
    with LoopbackHub(tmp_path / "hub") as hub:
        hub.connect(monkeypatch, tmp_path)
        source = locate("owner/tiny")
        with pytest.raises(ConfigError, match="auto_map"):
            prepare(source, tmp_path / "out", chat_template=None, trust_remote_code=False)
