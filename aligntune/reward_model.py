"""What stands beside a trained reward model: its measurement, how to normalise it, and its card.

<artifact>/
    model/                           from_pretrained works, as a classification model of one output
    model/README.md                  the card
    model/reward_normalization.json  mean and standard deviation of reference answers
    evaluation.json                  metrics and calibration
    reliability.svg                  of pairs: how sure it is against how often it is right
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from aligntune.artifacts import Artifact, ancestors, write_atomic
from aligntune.card import CardFacts, model_card
from aligntune.config.slices import TrainSlice
from aligntune.evaluate.reward_model import Measured, measure
from aligntune.heartbeat import Progress
from aligntune.models.save import write_json
from aligntune.publish import datasets_of
from aligntune.report.reliability import diagram
from aligntune.rewards.learned import NORMALIZATION
from aligntune.train.reward_rows import extras, scores

ABOUT = (
    "A reward model trained with `aligntune`: a classification model whose one output is the score "
    "of a conversation's last answer, in the chat template. Only differences between answers to "
    "one prompt mean something; `reward_normalization.json` has the mean and standard deviation of "
    "reference answers' scores. Accuracy is also given for the pairs whose chosen answer is the "
    "longer one, the shorter one or about as long: a model that goes by length is good at one of "
    "them and bad at another."
)


def finish(
    spec: TrainSlice, inputs: Mapping[str, Artifact], out: Path, progress: Progress
) -> dict[str, float]:
    """The metrics of the model in `out/model` on held-out rows, and everything beside it written.

    Raises:
        DataError: nothing is held out, or it scores all of it alike.
        Diverged: a score is not finite.
    """
    data = inputs["data"]
    measured = measure(out / "model", data.path, spec, lambda path: scores(extras(path)), progress)
    pairs = spec.objective == "bradley_terry"
    reference = "the chosen held-out answers" if pairs else "the held-out answers"
    stored = measured.normalization | {"reference": reference}
    write_json(out / "model" / NORMALIZATION, stored)
    document = {
        "format": 1,
        "objective": spec.objective,
        "metrics": measured.metrics,
        "reliability": [asdict(bin) for bin in measured.bins],
        "normalization": stored,
    }
    write_atomic(out / "evaluation.json", json.dumps(document, indent=2))
    if measured.bins:
        write_atomic(out / "reliability.svg", diagram(measured.bins, measured.metrics["ece"]))
    write_atomic(out / "model" / "README.md", model_card(_facts(spec, inputs, measured)))
    return measured.metrics


def _facts(spec: TrainSlice, inputs: Mapping[str, Artifact], measured: Measured) -> CardFacts:
    base, data = inputs["model"].manifest, inputs["data"]
    line = {made.name: made for made in (inputs["model"], *ancestors(data), data)}
    training = spec.train.model_dump(mode="json", exclude_none=True)
    return CardFacts(
        title="reward model",
        about=ABOUT,
        base_model=str(base.facts["source"]),
        base_fingerprint=str(base.facts["fingerprint"]),
        algorithm=f"reward model, {spec.objective}",
        created="",
        datasets=datasets_of(data),
        metrics=[
            (name, value, measured.metrics.get(f"{name}/low"), measured.metrics.get(f"{name}/high"))
            for name, value in measured.metrics.items()
            if name.rpartition("/")[2] not in ("low", "high", "count")
        ],
        lineage=[(made.manifest.kind, made.manifest.key) for made in line.values()],
        hyperparameters={
            **training,
            "peft": spec.peft.model_dump(mode="json") if spec.peft else None,
            "seed": spec.seed,
        },
        versions=base.environment,
    )
