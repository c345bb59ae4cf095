"""Where a run goes and how it is reported: nothing here changes a result."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from aligntune.config.base import NeutralField, Strict

Logger = Literal["tensorboard", "wandb", "mlflow"]


def _listed(value: Any) -> Any:
    # As for TrainingArguments.report_to: one name, or "none", may stand for a list.
    if value == "none":
        return []
    return [value] if isinstance(value, str) else value


Loggers = Annotated[tuple[Logger, ...], BeforeValidator(_listed)]


class Logging(Strict):
    output_dir: str = Field("./output", min_length=1)
    """Everything a run writes goes below this directory."""
    run_name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Name of the MLflow run and of the directory with links and report. Default: the config
    file's name."""
    sweep: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """The sweep that the run is a part of, a tag of its MLflow run; `aligntune sweep` sets it."""
    loggers: Loggers | None = None
    """Where the training curves also go. MLflow always has them. Default: tensorboard."""
    report_to: Loggers | None = None
    """The same as `loggers`, under the name that it has in transformers."""
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Log level."""
    save_steps: int = Field(500, ge=1)
    """Optimizer steps between checkpoints."""
    eval_steps: int | None = Field(100, ge=1)
    """Optimizer steps between losses on held-out rows during training; null for none."""
    load_best: bool = False
    """Keep the checkpoint with the lowest held-out loss and not the last one; sft and dpo."""
    push_to_hub: bool = False
    """Push the final model to the hub."""
    hub_model_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}$"
    )
    """`owner/name` to push to."""
    hub_private: bool = True
    """Create the hub repository as private."""
    hub_license: str | None = None
    """Licence identifier for the model card, such as `apache-2.0`."""

    @property
    def backends(self) -> tuple[Logger, ...]:
        """`loggers`, or its synonym, or the default."""
        named = self.loggers if self.loggers is not None else self.report_to
        return ("tensorboard",) if named is None else tuple(dict.fromkeys(named))


class SampleLogging(Strict):
    """Answers of the model in training, to look at. Without this section there are none."""

    enabled: bool = True
    """Log samples."""
    num_samples: int = Field(2, ge=1, le=64)
    """Prompts to answer each time."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest answer in tokens."""
    interval_steps: int | None = Field(None, ge=1)
    """Optimizer steps between samples."""
    percent_of_max_steps: float | None = Field(None, gt=0, le=1)
    """The same as a share of all steps: 0.5 is in the middle and at the end. With both, samples
    are taken at either. Default: 0.5 without `interval_steps`."""
    prompts: tuple[str, ...] | None = Field(None, min_length=1)
    """What to ask. Default: the first held-out prompts."""
    temperature: float = Field(0.7, ge=0)
    """Of the sampling; 0 is greedy."""
    top_p: float = Field(0.9, gt=0, le=1)
    """Of the sampling: the smallest set of tokens with this much probability."""

    def intervals(self, steps: int) -> list[int]:
        """The numbers of optimizer steps, in a training of `steps`, at whose multiples samples are
        taken."""
        share = self.percent_of_max_steps
        if share is None and self.interval_steps is None:
            share = 0.5
        shared = [] if share is None else [max(round(share * steps), 1)]
        return shared if self.interval_steps is None else [self.interval_steps, *shared]


class Launch(Strict):
    """Where training processes run."""

    mode: Literal["inline", "process"] = "inline"
    """`inline` trains in this process; `process` in a child process per training stage, as flows
    always do, and runs with rewards of your own: code that ends its process must not end the run
    as if it was finished."""
    processes: int = Field(1, ge=1)
    """Processes that train together, one per GPU, on this machine or shared out to the nodes of
    `aligntune.train.nodes`; each takes its own `train.per_device_batch_size` rows. More than one
    always run apart from this process."""
    timeout: float | None = Field(None, gt=0)
    """Seconds that each stage with a model may take, which then runs in a process of its own: it
    saves and ends with 75, and the same command goes on. Default: no limit."""
    hang_timeout: float | None = Field(1800, gt=0)
    """Seconds without a step, a batch or a forward pass after which a process of its own is taken
    to hang, four times as long while it computes: its stacks go to its log, and it ends as with
    `timeout`. null: never."""
    concurrent: bool | None = None
    """Flows: train `sft` and the reward model at the same time, in a process each. Default: where
    there are GPUs for both."""
    data_workers: NeutralField[int] = Field(1, ge=1)
    """Processes that read and tokenise data; what they make does not depend on it."""

    @property
    def apart(self) -> bool:
        """Whether stages with a model run in processes of their own, by these settings alone."""
        return self.mode == "process" or self.processes > 1 or self.timeout is not None
