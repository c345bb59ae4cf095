"""`aligntune rewards`. As in `cli`, a command imports what it needs."""

from __future__ import annotations

from typing import Any

import click


@click.group(invoke_without_command=True)
@click.pass_context
def rewards(context: click.Context) -> None:
    """List the built-in rewards, show one, or try one."""
    if not context.invoked_subcommand:
        _print_catalogue()


@rewards.command("show")
@click.argument("name")
def rewards_show(name: str) -> None:
    """Print what a reward measures, its range, what it needs, and its params."""
    from aligntune.rewards.describe import described

    click.echo(described(name))


@rewards.command("test")
@click.argument("name")
@click.option("--text", "texts", multiple=True, required=True, help="A completion to score.")
@click.option("--prompt", default="", help="What it was asked for.")
@click.option("--answer", help="The reference answer.")
@click.option("--columns", default="{}", metavar="JSON", help="The row's other columns.")
@click.option("--params", default="{}", metavar="JSON", help="Settings of the reward.")
@click.option("--model-name", help="The model that judges.")
def rewards_test(name: str, texts: tuple[str, ...], **given: Any) -> None:
    """Print the score that a reward gives to each text."""
    from aligntune.config.rewards import Reward
    from aligntune.rewards import Sample, scorer

    columns, params = (_object(f"--{key}", given[key]) for key in ("columns", "params"))
    reward = Reward(reward_type=name, params=params, model_name=given["model_name"])
    samples = [Sample(given["prompt"], text, given["answer"], columns=columns) for text in texts]
    for text, score in zip(texts, scorer(reward)(samples), strict=True):
        click.echo(f"{'none' if score is None else f'{score + 0.0:.4f}':>8}  {text[:80]!r}")


def _print_catalogue() -> None:
    """By topic: name, range, what it says, and what it needs."""
    from aligntune.rewards import REWARDS

    wide = max(map(len, REWARDS)), max(len(known.range) for known in REWARDS.values())
    for topic in dict.fromkeys(known.topic for known in REWARDS.values()):
        click.echo(f"{topic}")
        for name, known in REWARDS.items():
            if known.topic == topic:
                needs = f" [{known.needs}]" if known.needs else ""
                click.echo(f"  {name:<{wide[0]}}  {known.range:<{wide[1]}}  {known.says}{needs}")


def print_table(rows: dict[str, str]) -> None:
    """Names and what is said of each."""
    width = max(map(len, rows))
    for known, says in rows.items():
        click.echo(f"{known:<{width}}  {says}")


def _object(option: str, text: str) -> dict[str, Any]:
    import json

    from aligntune.errors import ConfigError

    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f"{option} is {text!r}; write a JSON object such as '{{\"n\": 2}}'")
    return found
