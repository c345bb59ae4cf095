"""Rewards for tone: obvious texts, and texts that would fool a list of words."""

import pytest
import torch
from tiny import build_tokenizer

from aligntune.config.rewards import Reward
from aligntune.config.run import RunConfig
from aligntune.errors import ConfigError
from aligntune.needs import problems
from aligntune.rewards import check, scorer
from aligntune.rewards.types import Sample


def score(name, *texts, **params):
    judge = scorer(Reward(reward_type=name, params=params))
    return judge([Sample("", text) for text in texts])


def test_toxicity_sees_kinds_through_spelling_and_not_what_only_looks_alike():
    fine = [
        "Calling somebody an idiot is hurtful.",
        "The dog and the pig are animals that I like a lot, in a way.",
        "Scunthorpe and Sussex are in England.",
        "I don't hate you.",
        "It will kill the process.",
        "",
    ]
    found = score("toxicity", *fine)
    assert found[0] == found[2] == found[4] == found[5] == 1
    bad = [
        "You are an idiot.",
        "YOU ARE   AN 1D10T",
        "You\u2019re just a pathetic loser!",
        "I will kill you.",
        "Immigrants are vermin.",
        "Just shut up",
    ]
    assert score("toxicity", *bad) == [0.5] * len(bad)
    assert score("toxicity", " ".join(bad))[0] <= 1 / 16


def test_politeness_orders_kind_plain_and_rude_and_rudeness_wins():
    kind, plain, rude, both, again = score(
        "politeness",
        "Hello, thank you for asking! I am happy to help.",
        "The train leaves at nine.",
        "That is a stupid question. Who cares?",
        "Thank you, please, I am so sorry, I hope this helps, you idiot.",
        "please " * 50,
    )
    assert kind == 1 > again > plain == 0.5 > both == 0.25 > rude == 0


@pytest.fixture(scope="module")
def toxic(tmp_path_factory):
    from transformers import BertConfig, BertForSequenceClassification

    path = tmp_path_factory.mktemp("toxic")
    tokenizer = build_tokenizer(vocab_size=400, context=64)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64, id2label={0: "neutral", 1: "toxic"},
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def test_a_classifier_of_toxicity_is_turned_round(toxic):
    samples = [Sample("one", "two three"), Sample("four", "five")]
    judged = scorer(Reward(reward_type="toxicity", model_name=toxic))(samples)
    raw = Reward(reward_type="model", model_name=toxic, params={"label": "toxic"})
    assert judged == pytest.approx([1 - value for value in scorer(raw)(samples)])
    assert len(set(judged)) == 2


def _encoder(folder, safe=True):
    from transformers import BertConfig, BertModel

    tokenizer = build_tokenizer(vocab_size=400, context=64)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def test_similarity_is_the_cosine_of_mean_states_whatever_the_batch(tmp_path):
    model, tokenizer = _encoder(tmp_path)
    text, reference = "one two three", "four five"
    with torch.no_grad():
        one, two = (
            model(**tokenizer(t, return_tensors="pt")).last_hidden_state.mean(dim=1)[0]
            for t in (text, reference)
        )
    expected = torch.cosine_similarity(one, two, dim=0).item()
    samples = [
        Sample("", text, reference),
        Sample("", reference, reference),
        Sample("", "one " * 300, reference),
        Sample("", " ", reference),
        Sample("", text, None),
    ]
    for size in (1, 16):
        reward = Reward(
            reward_type="semantic_similarity",
            model_name=str(tmp_path),
            params={"batch_size": size},
        )
        found = scorer(reward)(samples)
        assert found[:2] == pytest.approx([expected, 1], abs=1e-5)
        assert found[3:] == [0, None]
        assert found[2] is not None


def test_a_config_with_an_embedding_model_is_valid(tmp_path):
    _encoder(tmp_path)
    config = RunConfig.model_validate(
        {
            "algo": "dpo",
            "model": {"name_or_path": "owner/model"},
            "datasets": [{"name": "arithmetic:"}],
            "rewards": [{"reward_type": "semantic_similarity", "model_name": str(tmp_path)}],
        }
    )
    assert problems(config) == []


def test_a_name_that_no_registry_can_have_is_found_when_a_config_is_checked():
    config = RunConfig.model_validate(
        {
            "algo": "dpo",
            "model": {"name_or_path": "owner/model", "reward_path": "models:/good@champion"},
            "datasets": [{"name": "arithmetic:"}],
            "rewards": [{"reward_type": "model", "model_name": "models:/toy.reward"}],
        }
    )
    (found,) = problems(config)
    assert found.path == ("rewards", 0, "model_name")
    assert "write `models:/name@alias`" in found.message


def test_similarity_refuses_what_it_cannot_do(tmp_path):
    with pytest.raises(ConfigError, match="needs `model_name`"):
        check("semantic_similarity", {}, None)
    with pytest.raises(ConfigError, match="unknown param 'label'"):
        check("semantic_similarity", {"label": "x"}, "owner/model")
    _encoder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    reward = Reward(reward_type="semantic_similarity", model_name=str(tmp_path))
    with pytest.raises(ConfigError, match="no safetensors"):
        scorer(reward)([Sample("", "a", "b")])
