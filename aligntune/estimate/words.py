"""Sizes in words."""


def gigabytes(size: float) -> str:
    """`1.3 GB`, of 2**30 bytes."""
    count = size / 2**30
    digits = 0 if count >= 10 else 1 if count >= 1 else 2
    return f"{count:.{digits}f} GB"


def operations(count: float) -> str:
    """`3.1e+15` as `3.1 PFLOP`."""
    size, name = next((s, n) for s, n in _UNITS if count >= s or s == 1)
    return f"{count / size:.3g} {name}FLOP"


def span(seconds: float) -> str:
    """`3 h`, two digits of it: it is a guess."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {name}"
    return f"{seconds:.2g} s"


_UNITS = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1, ""))
