"""Model folders that are somebody's program: each is refused by file and key, and nothing runs."""

import json
import os
import pickle
import shutil

import pytest

from aligntune.errors import ConfigError
from aligntune.models.prepare import prepare
from aligntune.models.source import locate

CODE = "auto.AutoThing"


class Bomb:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def edited(name, **changes):
    def spoil(folder, _):
        path = folder / name
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | changes))

    return spoil


def pickled(name):
    def spoil(folder, mark):
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(pickle.dumps(Bomb(mark)))

    return spoil


def linked(name, target="secret"):
    def spoil(folder, mark):
        place = mark.with_name(target)
        if target == "secret":
            place.write_text("private")
        else:
            shutil.copy(folder / name, place)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(place)

    return spoil


def python(folder, mark):
    (folder / "modeling_evil.py").write_text(f"open({str(mark)!r}, 'w')")


def pretending(folder, mark):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(mark)))


def index(shard):
    def spoil(folder, mark):
        (folder / "model.safetensors").rename(mark.with_name("other.safetensors"))
        listed = {"weight_map": {"a": shard.format(other=mark.with_name("other.safetensors"))}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(listed))

    return spoil


def adapter(folder, _):
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc"}')


def linked_folder(folder, mark):
    place = mark.with_name("templates")
    place.mkdir()
    (place / "evil.jinja").write_text("x")
    (folder / "additional_chat_templates").symlink_to(place)


EVIL = [
    (edited("config.json", auto_map={"AutoConfig": CODE}), "config.json", "auto_map"),
    (edited("config.json", text_config={"auto_map": {"x": CODE}}), "config.json", "auto_map"),
    (edited("tokenizer_config.json", auto_map={"AutoTokenizer": [CODE, None]}),
     "tokenizer_config.json", "auto_map"),
    (edited("generation_config.json", auto_map={"x": CODE}), "generation_config.json", "auto_map"),
    (edited("processor_config.json", auto_map={"AutoProcessor": CODE}), "processor_config.json",
     "auto_map"),
    (edited("config.json", _attn_implementation="evil/kernel"), "config.json",
     "_attn_implementation"),
    (edited("config.json", attn_implementation={"": "evil/kernel"}), "config.json",
     "attn_implementation"),
    (edited("config.json", experts_implementation="evil/kernel"), "config.json",
     "experts_implementation"),
    (edited("config.json", _attn_implementation_internal="evil"), "config.json",
     "_attn_implementation_internal"),
    (edited("tokenizer_config.json", vocab_file="/etc/passwd"), "tokenizer_config.json",
     "vocab_file"),
    (edited("tokenizer_config.json", tokenizer_file="../../secret"), "tokenizer_config.json",
     "tokenizer_file"),
    (edited("tokenizer_config.json", merges_file="C:\\secret"), "tokenizer_config.json",
     "merges_file"),
    (edited("tokenizer_config.json", chat_template_file="..\\secret"), "tokenizer_config.json",
     "chat_template_file"),
    (edited("config.json", transformers_weights="/other.safetensors"), "config.json",
     "transformers_weights"),
    (python, "modeling_evil.py", "Python code"),
    (pickled("pytorch_model.bin"), "pytorch_model.bin", "can run code"),
    (pickled("model.pt"), "model.pt", "can run code"),
    (pickled("consolidated.pth"), "consolidated.pth", "can run code"),
    (pretending, "model.safetensors", "not a whole safetensors file"),
    (index("../other.safetensors"), "index.json", "weight_map"),
    (index("{other}"), "index.json", "weight_map"),
    (linked("LICENSE"), "LICENSE", "outside the model"),
    (linked("config.json", "other.json"), "config.json", "outside the model"),
    (linked("model.safetensors", "other.safetensors"), "model.safetensors", "outside the model"),
    (linked_folder, "evil.jinja", "outside the model"),
    (adapter, "adapter", "without its base model"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(EVIL)))
def test_an_evil_model_is_refused_by_file_and_key_and_runs_nothing(number, tiny_model, tmp_path):
    spoil, file, key = EVIL[number]
    folder, mark = shutil.copytree(tiny_model, tmp_path / "model"), tmp_path / "it-ran"
    spoil(folder, mark)
    with pytest.raises(ConfigError) as caught:
        prepare(locate(str(folder)), tmp_path / "out", chat_template=None, trust_remote_code=False)
    assert file in str(caught.value)
    assert key in str(caught.value)
    assert not mark.exists()
    assert "private" not in "".join(
        path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*") if path.is_file()
    )


def test_the_same_model_unspoilt_is_prepared(tiny_model, tmp_path):
    facts = prepare(
        locate(str(tiny_model)), tmp_path / "out", chat_template=None, trust_remote_code=False
    )
    assert facts["model_type"] == "llama"
