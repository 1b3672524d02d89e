"""What the mixture says about each zero."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.special import expit, gammaln

from ._histogram import BLOCK_ENTRIES, as_matrix


class FitStatus(IntEnum):
    """What happened to a gene within a label."""

    FITTED = 0
    """The mixture was fitted."""
    RARE = 1
    """Left alone: too large a share of zeros in the label."""
    WEAK = 2
    """Left alone: mean too low in the label."""
    EMPTY = 3
    """The label has no cell."""


@dataclass(frozen=True, eq=False)
class GammaNormalFit:
    """Gamma-Normal mixtures ``rate * Gamma(alpha, beta) + (1 - rate) * Normal(mu, sigma)``, one per label and gene.

    All arrays are n_labels x n_genes. Parameters are on the scale log(exp(offset) + x), nan where nothing was fitted.
    Made by :func:`fit_gamma_normal`.

    Parameters
    ----------
    rate
        Weight of the Gamma (dropout) component.
    alpha, beta
        Shape and rate (inverse scale) of the Gamma component.
    mu, sigma
        Mean and standard deviation of the Normal component.
    status
        :class:`FitStatus` as int8.
    n_iter
        Updates made; 0 where nothing was fitted.
    log10_likelihood
        log10-likelihood of the parameters, summed over the label's cells; nan where nothing was fitted.
    offset
        Value of a zero on the fitted scale.
    """

    rate: NDArray[np.float64]
    alpha: NDArray[np.float64]
    beta: NDArray[np.float64]
    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]
    status: NDArray[np.int8]
    n_iter: NDArray[np.int16]
    log10_likelihood: NDArray[np.float64]
    offset: float

    def zero_probability(self) -> NDArray[np.float64]:
        """Probability that a zero of this gene in this label is a dropout, n_labels x n_genes; 0 where left alone."""
        fitted = self.status == FitStatus.FITTED
        parameters = [p[fitted] for p in (self.rate, self.alpha, self.beta, self.mu, self.sigma)]
        log_gamma, log_normal = log_components(self.offset, np.log(self.offset), parameters)
        probability = np.zeros(self.status.shape)
        probability[fitted] = expit(log_gamma - log_normal)
        return probability

    def dropout_mask(
        self,
        x: ArrayLike | sparse.sparray | sparse.spmatrix,
        labels: ArrayLike | None = None,
        *,
        threshold: float = 0.5,
    ) -> sparse.csr_matrix:
        """Zeros judged dropouts.

        The work needs a block of cells at a time, never all cells x genes. The result itself stores each dropout,
        5 bytes apiece (9 from 2^31 on), which is most of a sparse matrix: prefer :meth:`zero_probability` and blocks of
        cells where memory is short.

        Parameters
        ----------
        x
            Cells x genes, dense or sparse; only its zeros matter. Genes as fitted; the cells may be others.
        labels
            Label code of each cell, shape (n_cells,); None with a single label.
        threshold
            Probability from which a zero is a dropout, above 0 and at most 1.

        Returns
        -------
        Cells x genes, bool.

        Raises
        ------
        ValueError
            If genes, labels or threshold do not fit.
        """
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}.")
        rows = as_matrix(x, "csr")
        n_labels, n_genes = self.status.shape
        if rows.shape[1] != n_genes:
            raise ValueError(f"The mixture was fitted on {n_genes} genes, but x has {rows.shape[1]}.")
        codes, _ = as_codes(labels, rows.shape[0], n_labels)
        judged = self.zero_probability() >= threshold

        # Counting first lets the result be filled in place: no second copy of it at any moment.
        per_cell = [np.count_nonzero(block, axis=1) for block in _zeros(rows, judged, codes)]
        indptr = np.cumsum(np.concatenate([[0], *per_cell]))
        dtype = np.int32 if max(indptr[-1], n_genes) <= np.iinfo(np.int32).max else np.int64
        indices = np.empty(indptr[-1], dtype=dtype)
        filled = 0
        for block in _zeros(rows, judged, codes):
            genes = np.nonzero(block)[1]
            indices[filled : filled + genes.size] = genes
            filled += genes.size
        data = np.ones(indices.size, dtype=bool)
        return sparse.csr_matrix((data, indices, indptr.astype(dtype)), shape=rows.shape)


def log_components(
    values: ArrayLike, log_values: ArrayLike, parameters: Sequence[NDArray[np.float64]], spread: Callable = np.asarray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Natural logs of ``rate * Gamma(value)`` and ``(1 - rate) * Normal(value)``; -inf for a component without weight.

    Parameters
    ----------
    values, log_values
        Values on the fitted scale and their logs, shape (n_entries,).
    parameters
        rate, alpha, beta, mu, sigma of each pair, shape (n_pairs,).
    spread
        Repeats the number of each pair for its entries; needless where a pair has one entry.
    """
    rate, alpha, beta, mu, sigma = parameters
    with np.errstate(divide="ignore"):
        log_rate, log_rest = np.log(rate), np.log1p(-rate)
    gamma_constant = log_rate + alpha * np.log(beta) - gammaln(alpha)
    normal_constant = log_rest - np.log(sigma) - 0.5 * np.log(2 * np.pi)
    log_gamma = spread(gamma_constant) + spread(alpha - 1) * log_values - spread(beta) * values
    log_normal = spread(normal_constant) - 0.5 * ((values - spread(mu)) * spread(1 / sigma)) ** 2
    return log_gamma, log_normal


def as_codes(labels: ArrayLike | None, n_cells: int, n_labels: int | None) -> tuple[NDArray[np.intp], int]:
    """Check label codes, shape (n_cells,), and count the labels (the largest code + 1, unless given)."""
    codes = np.zeros(n_cells, dtype=np.intp) if labels is None else np.asarray(labels)
    if codes.shape != (n_cells,) or (codes.dtype.kind not in "iu" and codes.size):
        raise ValueError(f"labels must be {n_cells} integer codes, one a cell; got {codes.dtype}, shape {codes.shape}.")
    codes = codes.astype(np.intp)
    if labels is None and n_labels not in (None, 1):
        raise ValueError(f"labels are needed: there are {n_labels} of them.")
    n_labels = max(int(codes.max(initial=0)) + 1, 1) if n_labels is None else n_labels
    if codes.min(initial=0) < 0 or codes.max(initial=0) >= n_labels:
        raise ValueError(f"label codes must lie in 0..{n_labels - 1}; give unlabelled cells a code of their own.")
    return codes, n_labels


def _zeros(rows, judged: NDArray[np.bool_], codes: NDArray[np.intp]) -> Iterator[NDArray[np.bool_]]:
    """Zeros of judged genes, in dense blocks of cells."""
    step = max(1, 16 * BLOCK_ENTRIES // max(1, judged.shape[1]))  # bools are small
    for start in range(0, rows.shape[0], step):
        zeros = judged[codes[start : start + step]]
        block = rows[start : start + step]
        if sparse.issparse(block):
            cell = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
            observed = block.data != 0
            zeros[cell[observed], block.indices[observed]] = False
        else:
            zeros &= block == 0
        yield zeros
