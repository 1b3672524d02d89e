"""Losses on held-out molecules."""

from typing import Any

import numpy as np

from ._matrix import Matrix, as_matrix, check_values, dense_rows, row_blocks, same_shape

EPSILON = 1e-6
"""Added to a rate before its logarithm, as Open Problems does; it is what a predicted zero is charged with."""

CP10K = 1e4


def poisson_loss(rates: Any, test: Any, *, depth_ratio: float = 1.0) -> float:
    """Poisson loss of predicted rates on held-out molecules: ``mean(q - t * log(q + 1e-6))``.

    Parameters
    ----------
    rates
        Expected counts, cells x genes, dense or sparse.
    test
        Held-out counts t, cells x genes, dense or sparse.
    depth_ratio
        ``q = rates * depth_ratio`` must be at the depth of ``test``. For rates at the depth of the training molecules
        pass ``test.sum() / train.sum()``.

    Returns
    -------
    Mean loss per entry in nats (up to a constant of ``test``); lower is better.

    Raises
    ------
    ValueError
        If shapes differ, a value is negative or not finite, or ``depth_ratio`` is not above 0.

    Examples
    --------
    >>> from scgacl_scvi.evaluate import poisson_loss
    >>> round(poisson_loss([[1.0, 2.0]], [[1, 2]]), 4)
    0.8069

    References
    ----------
    Batson, Royer & Webber 2019, doi:10.1101/786269 (molecular cross-validation).
    """
    rates, test = _checked(rates, test, "rates")
    _check_ratio(depth_ratio)
    total = 0.0
    for rows in row_blocks(test.shape):
        q = dense_rows(rates, rows)
        q *= depth_ratio
        t = dense_rows(test, rows)
        seen = t > 0
        total += q.sum() - t[seen] @ np.log(q[seen] + EPSILON)
    return float(total / (test.shape[0] * test.shape[1]))


def poisson_loss_as_coded(rates: Any, test: Any, *, depth_ratio: float = 1.0) -> float:
    """Poisson loss with prediction and target swapped, as Open Problems computes it: ``mean(t - q * log(t + 1e-6))``.

    It is here to be shown beside :func:`poisson_loss`, never to tune on. Each molecule that is predicted where none was
    held out costs ``-log(1e-6)``, 13.8 nats, so the all-zero matrix scores near the best value that there is. And the
    loss is linear in q: the raw training counts, whose mean the true rates are, score as well as the true rates do.

    Parameters
    ----------
    rates, test, depth_ratio
        As for :func:`poisson_loss`.

    Returns
    -------
    Mean loss per entry; lower is called better.

    Raises
    ------
    ValueError
        As :func:`poisson_loss`.

    Examples
    --------
    >>> from scgacl_scvi.evaluate import poisson_loss_as_coded
    >>> round(poisson_loss_as_coded([[1.0, 2.0]], [[1, 0]]), 2)  # (1 - log(1) - 2 log(1e-6)) / 2
    14.32
    >>> poisson_loss_as_coded([[0.0, 0.0]], [[1, 0]])
    0.5

    References
    ----------
    Open Problems, task denoising, metric Poisson.
    """
    rates, test = _checked(rates, test, "rates")
    _check_ratio(depth_ratio)
    total = float(test.sum(dtype=np.float64))
    for rows in row_blocks(test.shape):
        q = dense_rows(rates, rows)
        q *= depth_ratio
        total -= np.vdot(q, np.log(dense_rows(test, rows) + EPSILON))
    return float(total / (test.shape[0] * test.shape[1]))


def poisson_gain(rates: Any, test: Any, baseline_rates: Any, *, depth_ratio: float = 1.0) -> float:
    """Gain of predicted rates over a baseline, in nats per held-out molecule.

    The difference of :func:`poisson_loss` times the number of entries, divided by ``test.sum()``. Unlike a percentage
    of the loss this has a zero that means something: the baseline.

    Parameters
    ----------
    rates
        Expected counts, cells x genes, dense or sparse.
    test
        Held-out counts, cells x genes, dense or sparse.
    baseline_rates
        Expected counts of the baseline (library x gene mean, as a rule), cells x genes, dense or sparse.
    depth_ratio
        Brings both rates to the depth of ``test``; see :func:`poisson_loss`.

    Returns
    -------
    Nats per held-out molecule; above 0 is better than the baseline.

    Raises
    ------
    ValueError
        If shapes differ, a value is negative or not finite, or ``test`` holds no molecule.

    Examples
    --------
    >>> from scgacl_scvi.evaluate import poisson_gain
    >>> poisson_gain([[1.0, 2.0]], [[1, 2]], [[1.0, 2.0]])
    0.0
    """
    rates, test = _checked(rates, test, "rates")
    baseline_rates, test = _checked(baseline_rates, test, "baseline_rates")
    molecules = float(test.sum(dtype=np.float64))
    if molecules == 0:
        raise ValueError("test: holds no molecule; hold out a larger share of the counts")
    difference = poisson_loss(baseline_rates, test, depth_ratio=depth_ratio) - poisson_loss(
        rates, test, depth_ratio=depth_ratio
    )
    return difference * test.shape[0] * test.shape[1] / molecules


def cp10k_mse(rates: Any, test: Any) -> float:
    """Mean squared difference after both are brought to 10,000 counts per cell and log1p.

    A column of Open Problems, biased towards zeros at low depth (the log of a mean is not the mean of the log): read
    it beside the all-zeros control.

    Parameters
    ----------
    rates
        Expected counts at any depth, cells x genes, dense or sparse.
    test
        Held-out counts, cells x genes, dense or sparse.

    Returns
    -------
    Mean squared difference on the log1p_cp10k scale; lower is better. Cells without a count stay at zero.

    Raises
    ------
    ValueError
        If shapes differ or a value is negative or not finite.

    Examples
    --------
    >>> from scgacl_scvi.evaluate import cp10k_mse
    >>> cp10k_mse([[0.5, 1.5]], [[1, 3]])
    0.0
    """
    rates, test = _checked(rates, test, "rates")
    total = 0.0
    for rows in row_blocks(test.shape):
        difference = _log1p_cp10k(dense_rows(rates, rows))
        difference -= _log1p_cp10k(dense_rows(test, rows))
        total += np.vdot(difference, difference)
    return float(total / (test.shape[0] * test.shape[1]))


def _log1p_cp10k(block: np.ndarray) -> np.ndarray:
    library = block.sum(1, keepdims=True)
    block /= np.where(library > 0, library, 1.0)  # first, so that no tiny library overflows
    block *= CP10K
    return np.log1p(block, out=block)


def _check_ratio(depth_ratio: float) -> None:
    if not (np.isfinite(depth_ratio) and depth_ratio > 0):
        raise ValueError(f"depth_ratio: got {depth_ratio!r}; pass test.sum() / train.sum(), which is above 0")


def _checked(rates: Any, test: Any, name: str) -> tuple[Matrix, Matrix]:
    rates, test = as_matrix(rates, name), as_matrix(test, "test")
    same_shape(test=test, **{name: rates})
    check_values(rates, name, nonnegative=True)
    check_values(test, "test", nonnegative=True)
    return rates, test
