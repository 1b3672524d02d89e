"""Expectation-maximisation for the Gamma-Normal mixture of every label and gene at once."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from ._fit import FitStatus, GammaNormalFit, as_codes, log_components
from ._gamma import gamma_shape
from ._histogram import Histogram, as_matrix, iter_histograms

LOG_ZERO = math.log(1.01)
MIN_RATE = 0.01
"""Weight at which the Gamma component starts for a gene without zeros."""
MIN_SIGMA = 0.01
"""Least standard deviation of the Normal component. Bounds the likelihood, which has no maximum without it."""
MIN_CELLS = 1e-200
"""A component with fewer cells keeps its parameters: sums of such weights have lost their digits to underflow."""


def fit_gamma_normal(
    x: ArrayLike | sparse.sparray | sparse.spmatrix,
    labels: ArrayLike | None = None,
    *,
    n_labels: int | None = None,
    offset: float = LOG_ZERO,
    min_mean: float = 0.01,
    max_zero_share: float = 0.95,
    tolerance: float = 0.5,
    max_iter: int = 100,
) -> GammaNormalFit:
    """Fit the published dropout rule: a Gamma-Normal mixture per label and gene, on log(1.01 + x).

    EM runs on the histogram of distinct values, whose size is that of the non-zeros at most and for counts far below.
    It starts at rate = share of zeros (.01 if there is none), alpha 1.5, beta 1, and at mean and population standard
    deviation (``ddof=0``) of the non-zeros; the likelihood there is the first that a change is measured from.
    The Normal component's variance is the weighted population variance, and its standard deviation never falls below
    .01 (the published start for a constant gene).

    Parameters
    ----------
    x
        Values, cells x genes, dense or sparse, none negative. Any scale on which an absent gene is 0, counts are
        fastest.
    labels
        Label code of each cell, 0, 1, ..., shape (n_cells,); None for a single label.
    n_labels
        Number of labels, where the last ones may have no cell; None for the largest code + 1.
    offset
        Value of a zero on the fitted scale, log(exp(offset) + x); above 0.
    min_mean
        Genes whose mean of log(exp(offset) + x), minus ``offset``, is lower in a label are left alone there.
    max_zero_share
        Genes with a larger share of zeros in a label are left alone there.
    tolerance
        EM ends when the squared change of the log10-likelihood is at most this.
    max_iter
        Updates after which EM ends anyway.

    Returns
    -------
    Parameters, status and likelihood, arrays n_labels x n_genes.

    Raises
    ------
    ValueError
        If values are negative or not finite, labels do not match the cells, or an option is out of range.

    Notes
    -----
    The model and its constants are those of the scGACL paper (doi:10.1093/bib/bbag018), "Dropout identification".

    Examples
    --------
    >>> counts = np.random.default_rng(0).poisson(2.0, size=(100, 5))
    >>> fit = fit_gamma_normal(counts)
    >>> fit.zero_probability().shape
    (1, 5)
    """
    if not 0 < offset < math.inf or max_iter < 1 or (n_labels is not None and n_labels < 1):
        raise ValueError(f"{offset=} must be positive and finite, {max_iter=} and {n_labels=} at least 1.")
    columns = as_matrix(x, "csc")
    codes, n_labels = as_codes(labels, columns.shape[0], n_labels)
    n_pairs = columns.shape[1] * n_labels  # gene by gene, as the histograms come

    status = np.full(n_pairs, FitStatus.EMPTY, dtype=np.int8)
    parameters = np.full((5, n_pairs), np.nan)
    n_iter = np.zeros(n_pairs, dtype=np.int16 if max_iter < 2**15 else np.int64)
    log10_likelihood = np.full(n_pairs, np.nan)
    for genes, counts in iter_histograms(columns, codes, n_labels):
        block = slice(genes.start * n_labels, genes.stop * n_labels)
        histogram = Histogram(np.log(math.exp(offset) + counts.values), counts.weights, counts.indptr)
        status[block] = _triage(histogram, offset, min_mean, max_zero_share)
        fitted = block.start + np.flatnonzero(status[block] == FitStatus.FITTED)
        if fitted.size:
            result = _em(histogram.select(status[block] == FitStatus.FITTED), tolerance, max_iter)
            parameters[:, fitted], n_iter[fitted], log10_likelihood[fitted] = result

    def by_label(pairs):
        return np.ascontiguousarray(pairs.reshape(-1, n_labels).T)

    arrays = (by_label(array) for array in (*parameters, status, n_iter, log10_likelihood))
    return GammaNormalFit(*arrays, offset=float(offset))


def _triage(histogram: Histogram, offset: float, min_mean: float, max_zero_share: float) -> NDArray[np.int8]:
    """Which pairs are worth a fit, (n_pairs,)."""
    n_cells = histogram.total(histogram.weights)
    n_zeros = histogram.weights[histogram.indptr[:-1]]
    per_pair = np.maximum(n_cells, 1)
    excess = histogram.total(histogram.weights * (histogram.values - offset)) / per_pair
    status = np.full(n_cells.size, FitStatus.FITTED, dtype=np.int8)
    status[excess < min_mean] = FitStatus.WEAK
    status[(n_zeros / per_pair > max_zero_share) | (n_zeros == n_cells)] = FitStatus.RARE
    status[n_cells == 0] = FitStatus.EMPTY
    return status


def _em(
    histogram: Histogram, tolerance: float, max_iter: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Parameters (5, n_pairs), updates made (n_pairs,) and log10-likelihood (n_pairs,) at the end of EM.

    ``histogram`` is on the fitted scale. Pairs that have converged leave the work.
    """
    n_pairs = histogram.indptr.size - 1
    results = np.empty((5, n_pairs)), np.empty(n_pairs, dtype=np.int64), np.empty(n_pairs)
    running = np.arange(n_pairs)
    parameters = _start(histogram)
    log_values = np.log(histogram.values)
    gamma_weights, normal_weights, likelihood = _expectation(histogram, log_values, parameters)
    for iteration in range(1, max_iter + 1):
        parameters = _maximisation(histogram, log_values, gamma_weights, normal_weights, parameters)
        previous = likelihood
        gamma_weights, normal_weights, likelihood = _expectation(histogram, log_values, parameters)
        done = (likelihood - previous) ** 2 <= tolerance
        done |= iteration == max_iter
        if not done.any():
            continue
        ended = running[done]
        results[0][:, ended], results[1][ended], results[2][ended] = parameters[:, done], iteration, likelihood[done]
        if done.all():
            break
        entries = histogram.spread(~done)
        gamma_weights, normal_weights, log_values = gamma_weights[entries], normal_weights[entries], log_values[entries]
        histogram = histogram.select(~done)
        running, parameters, likelihood = running[~done], parameters[:, ~done], likelihood[~done]
    return results


def _start(histogram: Histogram) -> NDArray[np.float64]:
    """Parameters that EM starts from: rate, alpha, beta, mu, sigma, (5, n_pairs)."""
    n_zeros = histogram.weights[histogram.indptr[:-1]]
    nonzero = histogram.weights.copy()
    nonzero[histogram.indptr[:-1]] = 0
    n_nonzero = histogram.total(nonzero)
    rate = n_zeros / (n_zeros + n_nonzero)
    rate[rate == 0] = MIN_RATE
    mu, sigma = _mean_sd(histogram, nonzero, n_nonzero)
    return np.stack([rate, np.full_like(rate, 1.5), np.ones_like(rate), mu, sigma])


def _expectation(
    histogram: Histogram, log_values: NDArray[np.float64], parameters: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Cells that each component takes of each entry, (n_entries,) twice, and the log10-likelihood, (n_pairs,)."""
    log_gamma, log_normal = log_components(histogram.values, log_values, parameters, histogram.spread)
    log_mixture = np.logaddexp(log_gamma, log_normal)
    # Both weights from logs: 1 - p would lose a component that is about to vanish.
    gamma_weights = histogram.weights * np.exp(log_gamma - log_mixture)
    normal_weights = histogram.weights * np.exp(log_normal - log_mixture)
    return gamma_weights, normal_weights, histogram.total(histogram.weights * log_mixture) / math.log(10)


def _maximisation(
    histogram: Histogram,
    log_values: NDArray[np.float64],
    gamma_weights: NDArray[np.float64],
    normal_weights: NDArray[np.float64],
    previous: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Parameters that maximise the expected likelihood, (5, n_pairs)."""
    n_gamma, n_normal = histogram.total(gamma_weights), histogram.total(normal_weights)
    new = previous.copy()
    new[0] = n_gamma / (n_gamma + n_normal)
    some_gamma, some_normal = n_gamma > MIN_CELLS, n_normal > MIN_CELLS

    mean = histogram.total(gamma_weights * histogram.values)[some_gamma] / n_gamma[some_gamma]
    mean_log = histogram.total(gamma_weights * log_values)[some_gamma] / n_gamma[some_gamma]
    new[1, some_gamma] = gamma_shape(np.log(mean) - mean_log)
    new[2, some_gamma] = new[1, some_gamma] / mean

    mu, sigma = _mean_sd(histogram, normal_weights, np.where(some_normal, n_normal, 1))
    new[3, some_normal], new[4, some_normal] = mu[some_normal], sigma[some_normal]
    return new


def _mean_sd(histogram: Histogram, weights: NDArray[np.float64], total: NDArray[np.float64]):
    """Weighted mean and population standard deviation of each pair, (n_pairs,) twice."""
    mean = histogram.total(weights * histogram.values) / total
    variance = histogram.total(weights * (histogram.values - histogram.spread(mean)) ** 2) / total
    return mean, np.maximum(np.sqrt(variance), MIN_SIGMA)
