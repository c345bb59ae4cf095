"""Each config of a method that builds on another says which key turns it into that one.

That loss and gradient are the same then is shown where the trainers are tested.
"""

from pathlib import Path

import pytest

from aligntune import shipped
from aligntune.check import check
from aligntune.config.presets import resolved
from aligntune.config.train import Train

KEYS = {
    # name: (the setting, its line in the file, the base, what of the base the method has changed)
    "gbmpo": (
        ["train.gbmpo.coefficient=0"],
        "coefficient: 1e-2  # 0 turns it into Dr. GRPO",
        "dr-grpo",
        {},
    ),
    "counterfactual-grpo": (
        ["train.counterfactual.mode=vanilla"],
        "# mode: vanilla  # all tokens weigh the same: DAPO's loss with a KL term",
        "dapo",
        {"beta": 0.005, "epsilon_high": 0.2, "overlong_buffer": 0, "max_resampling": 0},
    ),
    "bolt": (
        ["train.bolt.curriculum=false", "train.bolt.tracker=false"],
        "# tracker: false  # instead of the curriculum: compares within the group alone, GRPO",
        "grpo",
        {"loss_type": "dapo", "epsilon_high": 0.28, "scale_rewards": "batch", "beta": 0.0},
    ),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_config_says_which_key_makes_it_its_base(name):
    overrides, line, base, differs = KEYS[name]
    assert line in shipped.text(name)
    config = check([Path(shipped.FOLDER) / f"{name}.yaml"], overrides).config
    settings = config.train.model_dump(exclude={"gbmpo", "counterfactual", "bolt", *differs})
    given = {key: value for key, value in settings.items() if value is not None}
    length = config.model.max_seq_length
    ours = resolved(config.train, name, config.peft, length)
    theirs = resolved(Train(**given, **differs), base, config.peft, length)
    own = {"gbmpo", "counterfactual", "bolt", "max_resampling"}
    assert ours.model_dump(exclude=own) == theirs.model_dump(exclude=own)
    assert not ours.max_resampling
    assert not theirs.max_resampling
