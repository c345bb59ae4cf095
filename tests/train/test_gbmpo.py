"""GBMPO's penalty inside of a training run."""

import pytest
import torch
from places import place
from rollouts import ROWS, curve, letters, run, spec
from safetensors.torch import save_file

from aligntune.config.base import identity
from aligntune.config.train import Gbmpo, Peft
from aligntune.errors import ConfigError, DataError
from aligntune.losses.mirror import SIZE, mirror
from aligntune.stages import KINDS
from aligntune.train.mirror_file import write_mirror
from aligntune.train.policy import TRAINERS

SHORT = {"max_steps": 4, "learning_rate": 1e-3, "num_iterations": 2}


@pytest.fixture(autouse=True)
def rewards(monkeypatch):
    monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda reward: letters)


@pytest.fixture
def setting(tmp_path):
    return lambda name="out": place(tmp_path / name)


def train(path, setting, *peft, precision="fp32", **settings):
    wanted = spec("gbmpo", *peft, **SHORT | settings)
    wanted = wanted.model_copy(update={"precision": precision})
    return run(TRAINERS["gbmpo"], path, wanted, setting, ROWS)


@pytest.mark.parametrize("peft", [None, Peft(r=4)])
@pytest.mark.parametrize("kind", ["kl", "neural"])
def test_the_exact_divergence_is_that_of_the_two_models(tiny_model, setting, peft, kind):
    made, wanted = setting(), Gbmpo(divergence=kind, coefficient=1.0, full_vocabulary=True)
    trainer = train(tiny_model, made, *filter(None, [peft]), gbmpo=wanted)
    measured = curve(made, "train/divergence/exact")
    assert measured[0] == pytest.approx(0, abs=1e-9)
    assert min(measured[1:]) > 0

    ids = torch.tensor([[5, 6, 7, 8, 9]])
    inputs = {
        "prompt_ids": ids[:, :2],
        "prompt_mask": torch.ones(1, 2, dtype=torch.long),
        "completion_ids": ids[:, 2:],
        "completion_mask": torch.ones(1, 3, dtype=torch.long),
    }
    with torch.no_grad():
        found = trainer._exact(inputs)
        own = trainer.model(input_ids=ids).logits[:, 1:-1].log_softmax(-1)
        with trainer._reference() as reference:
            other = reference(input_ids=ids).logits[:, 1:-1].log_softmax(-1)
    assert not torch.equal(own, other)
    expected = trainer._divergence.distance(own, other).sum(-1)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("peft", [(), (Peft(r=4),)], ids=["full", "lora"])
def test_the_reference_is_rounded_as_the_policy_is(tiny_model, setting, peft):
    """In bf16, so that a policy that is the reference is at no distance from it."""
    wanted, made = Gbmpo(divergence="kl", coefficient=1.0, full_vocabulary=True), setting()
    options = {"precision": "bf16", "temperature": 0.7, "max_steps": 1, "num_iterations": 1}
    train(tiny_model, made, *peft, gbmpo=wanted, **options)
    assert curve(made, "train/divergence/exact") == [0]


def test_the_exact_divergence_does_not_depend_on_how_a_step_is_split(tiny_model, setting):
    curves = []
    for batch, parts in ((16, 1), (4, 4)):
        made = setting(f"split{parts}")
        section = Gbmpo(divergence="prob_l2", coefficient=3.0, full_vocabulary=True)
        sizes = {"per_device_batch_size": batch, "gradient_accumulation_steps": parts}
        train(tiny_model, made, gbmpo=section, num_generations=4, **sizes)
        names = ("loss", "grad_norm", "divergence/exact")
        curves.append([curve(made, f"train/{name}") for name in names])
    for whole, split in zip(*curves, strict=True):
        assert whole == pytest.approx(split, rel=1e-4, abs=1e-7)


def test_the_exact_divergence_holds_the_policy_at_the_reference(tiny_model, setting):
    for name, weight in (("held", 300.0), ("free", 1e-6)):
        section = Gbmpo(coefficient=weight, full_vocabulary=True)
        train(tiny_model, setting(name), gbmpo=section, max_steps=20)
    held, free = (max(curve(setting(n), "train/divergence/exact")) for n in ("held", "free"))
    assert held < free / 3


def test_with_kl_beside_it_is_the_divergence_and_beta(tiny_model, setting):
    train(tiny_model, setting("dual"), gbmpo=Gbmpo(divergence="l2kl", coefficient=0.3))
    train(tiny_model, setting("parts"), gbmpo=Gbmpo(divergence="l2", coefficient=0.3), beta=0.1)
    for name in ("train/loss", "train/grad_norm"):
        assert curve(setting("dual"), name) == curve(setting("parts"), name)
    without = Gbmpo(divergence="l2", coefficient=0.3)
    train(tiny_model, setting("without"), gbmpo=without)
    assert curve(setting("without"), "train/loss") != curve(setting("dual"), "train/loss")


def test_kl_unbiased_in_value_is_the_kl_term_of_the_family(tiny_model, setting):
    section = Gbmpo(divergence="kl", estimator="sampled_is", coefficient=0.3)
    shared = SHORT | {"gradient_accumulation_steps": 2, "per_device_batch_size": 8}
    ours = train(tiny_model, setting("ours"), gbmpo=section, **shared)
    wanted = spec("dr-grpo", **shared, beta=0.3)
    theirs = run(TRAINERS["dr-grpo"], tiny_model, wanted, setting("theirs"), ROWS)
    for name in ("train/loss", "train/grad_norm"):
        expected = curve(setting("theirs"), name)
        assert curve(setting("ours"), name) == pytest.approx(expected, rel=1e-4, abs=1e-7)
    got, expected = ours.model.state_dict(), theirs.model.state_dict()
    assert all(torch.allclose(got[name], expected[name], atol=1e-5) for name in expected)
    assert max(curve(setting("ours"), "train/divergence/loss_share")) > 1e-3


def test_the_share_of_the_penalty_is_logged(tiny_model, setting):
    for name, weight in (("little", 1e-9), ("much", 1e3)):
        train(tiny_model, setting(name), gbmpo=Gbmpo(divergence="l2", coefficient=weight))
    for what in ("loss_share", "gradient_share"):
        little, much = (curve(setting(n), f"train/divergence/{what}") for n in ("little", "much"))
        assert all(0 <= share <= 1 for share in (*little, *much))
        assert max(little[1:]) < 0.1 < 0.9 < max(much[1:])


def test_a_map_of_a_file_is_that_map(tiny_model, setting, tmp_path):
    file = tmp_path / "map" / "mirror.safetensors"
    write_mirror(mirror(7), file)
    neural = {"divergence": "neural", "coefficient": 50.0}
    for name, which in (("drawn", {"mirror_seed": 7}), ("read", {"mirror_path": str(file)})):
        train(tiny_model, setting(name), gbmpo=Gbmpo(**neural, **which))
    train(tiny_model, setting("other"), gbmpo=Gbmpo(**neural))
    drawn, read, other = (curve(setting(n), "train/loss") for n in ("drawn", "read", "other"))
    assert read == drawn
    assert read != other


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"other": torch.zeros(3)}, "holds no mirror map \\(KeyError\\)"),
        ({"parameters": torch.zeros(3)}, "shape \\(3,\\)"),
        ({"parameters": torch.full((SIZE,), torch.nan)}, "finite"),
        (None, "SafetensorError"),
    ],
)
def test_a_file_that_holds_no_map_is_an_error(tiny_model, setting, tmp_path, tensors, said):
    file = tmp_path / "mirror.safetensors"
    if tensors is None:
        file.write_bytes(b"none")
    else:
        save_file(tensors, file)
    section = Gbmpo(divergence="neural", mirror_path=str(file))
    with pytest.raises(DataError, match=said):
        train(tiny_model, setting(), gbmpo=section)


def test_another_map_is_another_stage_wherever_it_lies(tmp_path):
    found = []
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        file = tmp_path / name
        write_mirror(mirror(seed), file)
        section = Gbmpo(divergence="neural", mirror_path=str(file))
        wanted = spec("gbmpo", rewards=(), gbmpo=section)
        found.append((identity(wanted), KINDS["gbmpo"].sources(wanted, tmp_path)))
    one, same, other = found
    assert one == same
    assert one[1]["gbmpo.mirror_path"] != other[1]["gbmpo.mirror_path"]
    file.unlink()
    with pytest.raises(ConfigError, match=r"mirror_path: there is no file"):
        KINDS["gbmpo"].sources(wanted, tmp_path)
