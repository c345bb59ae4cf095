"""What a flow run shows while it goes on: loss and time left, and where MLflow has the run."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.timeout(900)


def artifacts(prefect, key):
    return [made for made in prefect.artifacts() if made.key == key]


def in_a_flow(body):
    from prefect import flow

    asyncio.run(flow(name="shows", persist_result=False)(body)())


def session(**given):
    return SimpleNamespace(folder=Path("runs/Some.run"), **given)


def test_how_far_a_stage_is(prefect, monkeypatch):
    from flows import progress

    monkeypatch.setattr(progress, "EVERY", 0.1)

    async def said(words):
        end = asyncio.get_running_loop().time() + 60
        while asyncio.get_running_loop().time() < end:
            found = await asyncio.to_thread(artifacts, prefect, "some-run-sft-live")
            if found and words in found[0].data:
                return found
            await asyncio.sleep(0.1)
        raise AssertionError(words)

    async def body():
        async with progress.showing(session(), "sft") as shown:
            shown(10, 40, {"loss": 2.5})
            await said("| done | 10 of 40 |")
            shown(20, 40, {"loss": 1.25})
            (page,) = await said("| done | 20 of 40 |")
            assert "| loss | 1.25 |" in page.data
            assert "| left | 0:" in page.data
            assert page.description.startswith("loss 1.25  20/40, 0:")
            (bar,) = await asyncio.to_thread(artifacts, prefect, "some-run-sft-progress")
            assert bar.data == 50

    in_a_flow(body)
    (bar,) = artifacts(prefect, "some-run-sft-progress")
    assert bar.data == 100


def test_a_short_stage_shows_nothing(prefect):
    from flows.progress import showing

    async def body():
        async with showing(session(), "short") as shown:
            shown(1, 1, {})

    in_a_flow(body)
    assert not artifacts(prefect, "some-run-short-live")


def test_a_server_that_does_not_answer_costs_nothing(prefect, monkeypatch, caplog):
    from flows import artifacts as kept
    from flows import progress

    async def never(*_, **__):
        await asyncio.sleep(600)

    monkeypatch.setattr(progress, "EVERY", 0.01)
    monkeypatch.setattr(kept, "PATIENCE", 0.1)
    monkeypatch.setattr(kept, "SHORT_PATIENCE", 0.1)
    monkeypatch.setattr(progress, "acreate_progress_artifact", never)

    async def body():
        async with progress.showing(session(), "away") as shown:
            shown(1, 2, {})
            await asyncio.sleep(0.5)

    in_a_flow(body)
    assert "did not take an artifact" in caplog.text


def test_the_link_to_mlflow_is_there_while_the_run_goes_on_and_only_once(prefect, monkeypatch):
    from flows import progress

    monkeypatch.setattr(progress, "LOOK", 0.05)
    looks = iter([None, None])
    url = "http://mlflow/#/experiments/1/runs/2"
    running = session(mlflow_run="2", run_url=lambda run: next(looks, url))

    async def body():
        async with progress.linked(running):
            for _ in range(600):
                if await asyncio.to_thread(artifacts, prefect, "some-run-mlflow"):
                    return
                await asyncio.sleep(0.1)

    in_a_flow(body)
    (link,) = artifacts(prefect, "some-run-mlflow")
    assert url in link.data
