"""`aligntune` with a witness of what is unpickled, and where asked for with a bug.

    ALIGNTUNE_WITNESS=<file> [ALIGNTUNE_BUG=<kind of stage>] python audited.py train --config X

A line of the file is {"class": "module.name", "by": [frames]}, or {"loads": path} of a file that
`torch.load` opens, whose unpickler for weights alone is not Python's.
"""

import json
import os
import sys
import threading
from types import FrameType

INSIDE = threading.local()


def watch(file: str) -> None:
    """Write down what this process unpickles from now on."""
    out = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def told(event: str, args: tuple[object, ...]) -> dict[str, object] | None:
        if event == "pickle.find_class":
            frames = [f"{f.f_code.co_filename}:{f.f_code.co_qualname}" for f in stack()]
            return {"class": f"{args[0]}.{args[1]}", "by": frames[:12]}
        path = args[0] if event == "open" else None
        if isinstance(path, str | os.PathLike) and any(map(_is_torch_load, stack())):
            return {"loads": os.fspath(path)}
        return None

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event not in ("pickle.find_class", "open") or getattr(INSIDE, "hook", False):
            return
        INSIDE.hook = True
        try:
            if line := told(event, args):
                os.write(out, (json.dumps(line) + "\n").encode())
        finally:
            INSIDE.hook = False

    sys.addaudithook(hook)


def stack() -> list[FrameType]:
    """The frames that called the hook, the innermost first."""
    found, frame = [], sys._getframe(3)
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


def _is_torch_load(frame: FrameType) -> bool:
    code = frame.f_code
    return code.co_name == "load" and code.co_filename.endswith("torch/serialization.py")


def break_down(kind: str) -> None:
    """Make stages of a kind raise what no code of ours expects."""
    from dataclasses import replace

    from aligntune.stages import KINDS

    def run(work: object) -> object:
        raise RuntimeError(f"a bug, with {work!r} at hand")

    KINDS[kind] = replace(KINDS[kind], run=run)


if __name__ == "__main__":
    watch(os.environ["ALIGNTUNE_WITNESS"])
    if kind := os.environ.get("ALIGNTUNE_BUG"):
        break_down(kind)
    from aligntune.cli import main

    main()
