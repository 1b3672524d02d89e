"""Random streams of the simulators."""

from numbers import Integral

import numpy as np

# A stage's place in this tuple is part of its stream: append, never reorder, or every seed gives other data.
_STAGES = (
    "means",
    "outliers",
    "bcv",
    "de",
    "batch_factors",
    "bridges",
    "library",
    "groups",
    "batches",
    "path",
    "cells",
    "null_genes",
    "null_cells",
    "null_counts",
)


def resolve_seed(seed: int | None) -> int:
    """Return ``seed``, or ``scvi.settings.seed`` for None, or 0 where that is None too."""
    if seed is None:
        import scvi  # takes seconds: only when it is asked for

        seed = 0 if scvi.settings.seed is None else scvi.settings.seed
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"seed must be a non-negative integer or None, got {seed!r}; pass for example seed=0.")
    return int(seed)


def stream(seed: int, stage: str, index: int = 0) -> np.random.Generator:
    """Return the generator of one stage, and of one group, batch or cell in it.

    Streams are independent of one another, so a setting of one stage never moves the draws of another.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STAGES.index(stage), index)))
