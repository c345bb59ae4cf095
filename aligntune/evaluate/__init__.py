"""Measuring a model on held-out rows, and whether it differs from another one measured there."""
