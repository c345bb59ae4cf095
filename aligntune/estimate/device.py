"""Devices that are not here, by their data sheets."""

import re
from dataclasses import dataclass

from aligntune.errors import ConfigError, unknown
from aligntune.estimate.room import Kind

_PEAKS = {
    "A10G": (70, 600), "A100": (312, 2000), "A6000": (155, 768), "B200": (2250, 8000),
    "H100": (989, 3350), "H200": (989, 4800), "L4": (121, 300), "L40S": (362, 864),
    "MI300X": (1307, 5300), "RTX3090": (71, 936), "RTX4090": (165, 1008),
}  # fmt: skip
"""(teraflops of bf16 without sparsity, gigabytes per second from memory), as vendors state them."""
UTILISATION = 0.4
"""Share of that which training reaches: 30 to 50 % is usual for dense models."""
_USABLE = 0.95
"""Share of its memory that a GPU gives to one process, before the rest fragments."""
_FORM = re.compile(r"(?:(?P<count>\d+)x)?(?P<name>[A-Za-z0-9]+)-(?P<size>\d+)GB", re.IGNORECASE)


@dataclass(frozen=True)
class Devices:
    """As many of one kind as train together."""

    name: str
    count: int
    kind: Kind
    memory: int
    """Bytes that each can use."""
    flops: float | None
    """Per second, of each, as training reaches them; None where the peak is not known."""
    bandwidth: float | None
    """Bytes per second that each reads from its memory."""


def devices(text: str) -> Devices:
    """What `8xH100-80GB`, `RTX4090-24GB` or `cpu-64GB` names.

    Raises:
        ConfigError: it is not of that form, or no such device is known.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ConfigError(f"--on {text[:40]!r}: write <count>x<device>-<memory>GB, as 8xH100-80GB")
    name, count = found["name"].upper(), int(found["count"] or 1)
    if name != "CPU" and name not in _PEAKS:
        raise ConfigError(unknown("device of --on", found["name"], ["cpu", *_PEAKS]))
    if not count:
        raise ConfigError(f"--on {text[:40]!r}: training needs at least one device")
    size = int(found["size"]) * 2**30
    if name == "CPU":
        return Devices(text, count, "cpu", size, None, None)
    peak, bandwidth = _PEAKS[name]
    usable = int(size * _USABLE)
    return Devices(text, count, "gpu", usable, peak * 1e12 * UTILISATION, bandwidth * 1e9)
