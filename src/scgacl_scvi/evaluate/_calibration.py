"""Calibration: whether stated probabilities and intervals hold."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ._matrix import as_matrix, check_values, dense_rows, row_blocks, same_shape


def reliability(probability: Any, outcome: Any, n_bins: int = 10) -> pd.DataFrame:
    """Compare stated probabilities with how often the event happened, in bins of equal width.

    Parameters
    ----------
    probability
        Stated probabilities (0 to 1), any shape.
    outcome
        Whether the event happened, same shape.
    n_bins
        Number of bins.

    Returns
    -------
    One row per bin: ``probability`` (mean stated), ``frequency`` (share in which it happened; NaN in an empty bin) and
    ``n``. ``attrs`` holds ``error``, the gap between the two, averaged over the entries; ``largest_gap`` among bins of
    at least 1 % of the entries; and ``brier``, the mean squared error of the probabilities.

    Raises
    ------
    ValueError
        If shapes differ, a number is no probability, there is none, or ``n_bins`` is below 1.

    Examples
    --------
    >>> from scgacl_scvi.evaluate import reliability
    >>> reliability([0.1, 0.1, 0.9], [False, False, True], n_bins=2)["n"].tolist()
    [2, 1]
    """
    probability, outcome = np.ravel(np.asarray(probability, float)), np.ravel(np.asarray(outcome)).astype(bool)
    if probability.shape != outcome.shape or not probability.size:
        raise ValueError(f"outcome: {outcome.size} values for {probability.size} probabilities; pass one for each")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("probability: holds values outside 0 to 1; pass probabilities")
    if n_bins < 1:
        raise ValueError(f"n_bins: got {n_bins}; pass at least 1")
    bins = np.minimum((probability * n_bins).astype(int), n_bins - 1)
    n = np.bincount(bins, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        stated, happened = (np.bincount(bins, weights=w, minlength=n_bins) / n for w in (probability, outcome))
    table = pd.DataFrame({"probability": stated, "frequency": happened, "n": n})
    gap = (table["probability"] - table["frequency"]).abs()
    table.attrs = {
        "error": float(np.nansum(gap * n) / n.sum()),
        "largest_gap": float(gap[n >= 0.01 * n.sum()].max()),
        "brier": float(np.mean((probability - outcome) ** 2)),
    }
    return table


def randomised_pit(observed: Any, samples: Iterable[Any], seed: int | None = None) -> np.ndarray:
    """Rank of each observed value among samples of its predictive distribution, ties broken at random.

    Uniform on 0 to 1 if the predictive distribution is right, also for counts, most of which are 0: plain intervals of
    sparse counts cannot have the coverage they state.

    Parameters
    ----------
    observed
        Counts that the samples' makers have not seen, cells x genes, dense or sparse.
    samples
        Draws of the predictive distribution, each cells x genes, dense or sparse, at the depth of ``observed``.
    seed
        Seed of the ties; None for that of ``scvi.settings``.

    Returns
    -------
    Cells x genes, float32: ``(below + u (equal + 1)) / (number of samples + 1)``, u uniform.

    Raises
    ------
    ValueError
        If there is no sample, or shapes differ.

    Examples
    --------
    >>> from scgacl_scvi.evaluate import coverage, randomised_pit
    >>> pit = randomised_pit([[0, 2]], [[[0, 1]], [[1, 3]]], seed=0)
    >>> pit.shape
    (1, 2)

    References
    ----------
    Czado, Gneiting & Held 2009, doi:10.1111/j.1541-0420.2009.01191.x.
    """
    from scgacl_scvi.datasets._seed import resolve_seed

    observed = as_matrix(observed, "observed")
    check_values(observed, "observed", nonnegative=True)
    ranks = np.zeros(observed.shape, dtype=np.float32)
    equal = np.ones(observed.shape, dtype=np.float32)
    n_samples = 0
    for sample in samples:
        sample = as_matrix(sample, "samples")
        same_shape(observed=observed, samples=sample)
        for rows in row_blocks(observed.shape):
            drawn, seen = dense_rows(sample, rows), dense_rows(observed, rows)
            ranks[rows] += drawn < seen
            equal[rows] += drawn == seen
        n_samples += 1
    if not n_samples:
        raise ValueError("samples: is empty; pass at least one draw")
    ranks += np.random.default_rng(resolve_seed(seed)).random(observed.shape, dtype=np.float32) * equal
    return ranks / (n_samples + 1)


def coverage(pit: Any, level: float = 0.9) -> float:
    """Share of the values inside their central interval, from :func:`randomised_pit`; ``level`` if all is right.

    Parameters
    ----------
    pit
        Ranks from 0 to 1, any shape.
    level
        Share that the interval is to hold.

    Returns
    -------
    A share, 0 to 1.

    Raises
    ------
    ValueError
        If ``level`` is not between 0 and 1 or a rank is outside 0 to 1.

    Examples
    --------
    >>> from scgacl_scvi.evaluate import coverage
    >>> coverage([0.01, 0.3, 0.5, 0.99], 0.9)
    0.5
    """
    pit = np.asarray(pit, dtype=float)
    if not 0 < level < 1:
        raise ValueError(f"level: got {level!r}; pass a share between 0 and 1")
    if not pit.size or not ((pit >= 0) & (pit <= 1)).all():
        raise ValueError("pit: expected ranks from 0 to 1; pass the result of randomised_pit")
    return float(((pit >= (1 - level) / 2) & (pit <= (1 + level) / 2)).mean())
