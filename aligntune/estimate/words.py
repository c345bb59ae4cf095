"""Sizes in words."""


def gigabytes(size: float) -> str:
    """`1.3 GB`, of 2**30 bytes."""
    count = size / 2**30
    return (
        f"{count:.0f} GB" if count >= 10 else f"{count:.2f} GB" if count < 1 else f"{count:.1f} GB"
    )
