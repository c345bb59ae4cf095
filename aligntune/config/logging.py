"""Where a run goes and how it is reported: nothing here changes a result."""

from typing import Literal

from pydantic import Field

from aligntune.config.base import Strict


class Logging(Strict):
    output_dir: str = "./output"
    """Everything a run writes goes below this directory."""
    run_name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Name of the MLflow run and of the directory with links and report. Default: the config
    file's name."""
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Log level."""
    save_steps: int = Field(100, ge=1)
    """Optimizer steps between checkpoints."""
    eval_steps: int | None = Field(None, ge=1)
    """Optimizer steps between losses on held-out rows during training. Default: none."""
    push_to_hub: bool = False
    """Push the final model to the hub."""
    hub_model_id: str | None = None
    """`owner/name` to push to."""
    hub_private: bool = True
    """Create the hub repository as private."""
    hub_license: str | None = None
    """Licence identifier for the model card, such as `apache-2.0`."""


class Launch(Strict):
    """Where training processes run."""

    mode: Literal["inline", "process"] = "inline"
    """`inline` trains in this process; `process` in a child process per training stage, as flows
    always do."""
