"""Whether a method saw the held-out molecules."""

from typing import Any

import numpy as np

from ._heldout import _checked
from ._matrix import dense_rows, row_blocks

LIMIT = -5.0
"""A score below it is called a leak: for an honest method that is an event of about five standard deviations."""


def leak_z(rates: Any, test: Any) -> float:
    r"""Score how far rates are *too* close to held-out counts; below -5 they have seen them.

    Given the true rates, held-out molecules are Poisson: nobody who has not seen them comes closer to them than their
    own noise. With q the rates at the depth of the held-out counts t, and :math:`\lambda` the true ones,

    .. math::

        \operatorname{E}[(t - q)^2 - t] = (\lambda - q)^2 \ge 0

    for a method whose q depends on the training molecules only, and -t for one that returns t. (Split t at random into
    halves: the left side is four times the expected product of their residuals, so no split is needed.) The score is
    the sum over all entries divided by its standard error; the latter is not taken to be below that at
    :math:`q = \lambda`, which is :math:`\sqrt{2 \sum q^2}`.

    It is one-sided: a method far from the truth can hide a small leak behind its errors, and some fifty molecules have
    to be held out to show even a full one. Counts less variable than Poisson ones, which no sequencing of molecules
    gives, would be called a leak.

    Parameters
    ----------
    rates
        Expected counts at any depth, cells x genes, dense or sparse; they are brought to the total of ``test``.
    test
        Held-out counts t, cells x genes, dense or sparse.

    Returns
    -------
    The score in standard errors: about 0 for the true rates, positive for others, below -5 for a leak. 0 for rates
    that are all zero.

    Raises
    ------
    ValueError
        If shapes differ, or a value is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from scgacl_scvi.evaluate import leak_z
    >>> test = np.random.default_rng(0).poisson(1.0, (50, 20))
    >>> leak_z(np.ones((50, 20)), test) > -5, leak_z(test, test) > -5
    (True, False)
    """
    rates, test = _checked(rates, test, "rates")
    total = float(rates.sum(dtype=np.float64))
    if total == 0:
        return 0.0
    depth = float(test.sum(dtype=np.float64)) / total
    excess = squares = expected = 0.0
    for rows in row_blocks(test.shape):
        q = dense_rows(rates, rows)
        q *= depth
        t = dense_rows(test, rows)
        expected += 2 * np.vdot(q, q)
        q -= t
        q *= q
        q -= t
        excess += q.sum()
        squares += np.vdot(q, q)
    error = np.sqrt(max(squares, expected))
    return float(excess / error) if error > 0 else 0.0
