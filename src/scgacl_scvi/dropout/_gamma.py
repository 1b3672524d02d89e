"""Maximum-likelihood shape of a Gamma distribution, for many samples at once."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, zeta

MAX_ALPHA = 20.0
"""Shape given to samples (nearly) without spread, whose likelihood has its maximum at infinity."""


def gamma_shape(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shape alpha that solves ``log(alpha) - digamma(alpha) = v``.

    Parameters
    ----------
    v
        ``log(mean) - mean(log)`` of each sample, shape (n,). 0 for a constant sample, larger with spread.

    Returns
    -------
    Shape (n,). :data:`MAX_ALPHA` where ``v <= 0`` or where the closed-form approximation
    ``(3 - v + sqrt((v - 3)^2 + 24 v)) / (12 v)`` (within 1.5 % of the root) reaches it.
    """
    alpha = np.full(v.shape, MAX_ALPHA)
    # The approximation is about 1 / (2 v) for small v, so these are capped without dividing by (nearly) zero.
    spread = np.flatnonzero(v > 1e-6)
    v = v[spread]
    start = (3 - v + np.sqrt((v - 3) ** 2 + 24 * v)) / (12 * v)
    below = start < MAX_ALPHA
    alpha[spread[below]] = _root(v[below], start[below])
    return alpha


def _root(v: NDArray[np.float64], alpha: NDArray[np.float64]) -> NDArray[np.float64]:
    # Newton on 1 / alpha, in which the equation is nearly linear.
    for _ in range(20):
        slope = alpha - alpha**2 * zeta(2.0, alpha)  # of the left side over 1 / alpha; zeta(2, .) is trigamma
        change = alpha * (np.log(alpha) - digamma(alpha) - v) / slope
        alpha = alpha / (1 + change)
        if not (np.abs(change) > 1e-9).any():  # quadratic convergence: the step just taken ends at machine precision
            break
    return alpha
