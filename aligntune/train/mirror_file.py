"""A mirror map in a file."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from aligntune.errors import DataError
from aligntune.losses.mirror import SIZE, Mirror, flat, unflat

NAME = "parameters"
"""The tensor in the file: v, w, b, a, c in this order, float64."""


def write_mirror(f: Mirror, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({NAME: flat(f)}, file)


def read_mirror(name: str) -> Mirror:
    """The map in the file `name`.

    Raises:
        DataError: there is none in it.
    """
    file = Path(os.path.expanduser(name))
    try:
        parameters = load_file(file)[NAME]
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(
            f"train.gbmpo.mirror_path: {file} holds no mirror map ({type(error).__name__}); name a "
            "file that `aligntune mirror` wrote"
        ) from error
    if parameters.shape != (SIZE,) or not bool(torch.isfinite(parameters).all()):
        raise DataError(
            f"train.gbmpo.mirror_path: {file} holds a tensor of shape {tuple(parameters.shape)} "
            f"that is not a mirror map; one has {SIZE} finite parameters"
        )
    return unflat(parameters)
