"""Where training curves go besides the journal: TensorBoard and Weights & Biases.

MLflow is not among them: it gets its curves from the journal, and they are the same ones.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aligntune.config.logging import Logger
from aligntune.errors import ConfigError

if TYPE_CHECKING:
    from aligntune.config.slices import TrainSlice
    from aligntune.train.loop import Setting

TENSORBOARD = "tensorboard"
"""Directory in the artifact."""
PROJECT = "aligntune"


def missing(loggers: Iterable[Logger]) -> list[Logger]:
    """Those whose package, which has the same name, is not installed."""
    return [name for name in loggers if name != "mlflow" and find_spec(name) is None]


@contextmanager
def open_for(
    trainer: Any, spec: "TrainSlice", setting: "Setting", resume: Path | None
) -> Iterator[None]:
    """`trainer` reports to the loggers of `spec` within.

    Raises ConfigError where one is not installed, or wandb does not know who is asking.
    """
    if absent := missing(spec.loggers):
        raise ConfigError(
            f"logging.loggers: {absent[0]} is not installed; `pip install {absent[0]}`, or remove "
            "it"
        )
    closing = []
    try:
        if trainer.is_world_process_zero():
            if "tensorboard" in spec.loggers:
                closing.append(_tensorboard(trainer, setting, resume))
            if "wandb" in spec.loggers:
                closing.append(_wandb(trainer, spec, setting))
        yield
    finally:
        for close in closing:
            close()


def _tensorboard(trainer: Any, setting: "Setting", resume: Path | None) -> Any:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    done = int(resume.name.rpartition("-")[2]) if resume else 0
    # What an interrupted attempt wrote after the checkpoint is written again.
    writer = SummaryWriter(str(setting.out / TENSORBOARD), purge_step=done + 1)
    trainer.add_callback(TensorBoardCallback(writer))
    return writer.close


def _wandb(trainer: Any, spec: "TrainSlice", setting: "Setting") -> Any:
    from transformers.integrations import WandbCallback

    wandb: Any = import_module("wandb")
    file = setting.work / "wandb-run"
    if not file.exists():
        file.write_text(uuid4().hex[:12])
    try:
        # The callback reports to the run that is open, and would open one in the working directory.
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=f"{spec.algo}-{setting.key}",
            id=file.read_text(),
            resume="allow",
            dir=os.environ.get("WANDB_DIR", str(setting.work)),
        )
    except wandb.errors.Error as error:
        raise ConfigError(
            f"logging.loggers: wandb: {error}; log in with `wandb login`, set WANDB_MODE=offline, "
            "or remove it"
        ) from error
    trainer.add_callback(WandbCallback())
    return run.finish
