import pytest
import torch

from aligntune.losses.importance import chosen, conserved, importance, normalised, weights

DEFAULTS = {"boost": 2.0, "min_weight": 0.5, "answer_weight": 1.5}
SPANS = [(0, 3), (4, 6), (7, 9)]
DROPS = [2.0, 0.5, -0.3]


def test_the_worked_example():
    raw = importance(10, SPANS, DROPS, credit="full")
    assert raw.tolist() == pytest.approx([*[2.2] * 3, 0.2, 0.7, 0.7, 0.2, -0.1, -0.1, 0.2])
    scaled = normalised(raw)
    high, low = [1.0] * 3, [0.5] * 2
    expected = [*high, 0.5652, 0.6739, 0.6739, 0.5652, *low, 0.5652]
    assert scaled.tolist() == pytest.approx(expected, abs=5e-5)
    final = weights(scaled, 12, **DEFAULTS)
    assert final.tolist() == pytest.approx(
        [*[1.2927] * 3, 0.8712, 0.9766, 0.9766, 0.8712, 0.808, 0.808, 0.8712, 0.9696, 0.9696],
        abs=5e-5,
    )
    assert float(final.mean()) == pytest.approx(1.0, abs=1e-6)


def test_per_token_credit_shares_a_drop_among_the_tokens_of_its_span():
    raw = importance(6, [(0, 4), (4, 5)], [2.0, 1.0], credit="per_token")
    assert raw.tolist() == pytest.approx([0.7] * 4 + [1.2, 0.2])


def test_inverted_mirrors_and_random_is_reproducible():
    scaled = normalised(importance(10, SPANS, DROPS, credit="full"))
    mirrored = chosen(scaled, "inverted")
    assert mirrored.tolist() == pytest.approx((1.5 - scaled).tolist())
    assert chosen(mirrored, "inverted").tolist() == pytest.approx(scaled.tolist())
    first, second = (
        chosen(scaled, "random", torch.Generator().manual_seed(seed)) for seed in (1, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, chosen(scaled, "random", torch.Generator().manual_seed(2)))
    assert 0 <= float(first.min()) < 0.5


def test_flat_importance_is_uniform_only_if_the_answer_weighs_as_much():
    flat = normalised(importance(4, [], [], credit="full"))
    uniform = weights(flat, 6, boost=2.0, min_weight=0.5, answer_weight=1.25)
    assert torch.equal(uniform, torch.ones(6))
    ratio = weights(flat, 6, **DEFAULTS)
    assert float(ratio[-1] / ratio[0]) == pytest.approx(1.5 / 1.25)


def test_formatting_tokens_keep_a_tenth_of_their_importance():
    scaled, formatting = torch.tensor([1.0, 1.0]), torch.tensor([False, True])
    plain, format_, answer = weights(scaled, 3, formatting=formatting, **DEFAULTS).tolist()
    assert format_ / plain == pytest.approx(0.65 / 2.0)
    assert answer / plain == pytest.approx(1.5 / 2.0)


@pytest.mark.parametrize("length", [1, 7, 300])
def test_weights_conserve_a_loss_that_is_the_same_for_every_token(length):
    token_weights = conserved(torch.rand(length, generator=torch.Generator().manual_seed(0)) + 0.1)
    assert float((token_weights * 0.7).sum()) == pytest.approx(0.7 * length, rel=1e-5)


def test_one_drop_per_span_is_required():
    with pytest.raises(ValueError, match="shorter"):
        importance(4, [(0, 1), (2, 3)], [1.0], credit="full")
