"""Dropout that depends on the expression it hides: what a zero says about the expression behind it.

Within a gene and a cell type dropout takes the low expressions first. A zero-inflated negative binomial whose dropout
does not look at the expression therefore overestimates the mean (what is left to see is too high), and with it the
probability that a zero hides something. Here the expression lambda of a gene in a cell is Gamma of mean ``m`` and shape
``theta``, its count Poisson, and the count is lost with probability

    logit pi(lambda) = a + b log(lambda),

one curve for all genes. All integrals over lambda are sums over fixed nodes, linear in ``pi``, and are tabulated over
log mean x log shape.
"""

from functools import lru_cache

import torch
from torch import Tensor, nn

LOG_MEAN = torch.linspace(-7.0, 13.0, 81, dtype=torch.float64)
LOG_SHAPE = torch.linspace(-3.0, 12.0, 61, dtype=torch.float64)
_EDGES = torch.cat([torch.zeros(1), torch.logspace(-3.0, 6.5, 131)]).double()
NODES = torch.cat([_EDGES[1:2] / 2, (_EDGES[1:-1] * _EDGES[2:]).sqrt()]).float()
"""Expressions (counts) at which integrands are taken."""
LOG_NODES = NODES.log()
SHOWN = -torch.expm1(-NODES)
"""Probability that a Poisson count of each node's mean is above 0."""
_TINY = 1e-30
_SHIFT = 1e-3  # counts; added to the generator's means, of which some are 0


@lru_cache(maxsize=1)
def node_weights() -> Tensor:
    """Probability of the surroundings of each node under Gamma(mean, shape), log means x log shapes x nodes."""
    with torch.inference_mode(False):  # a getter may come first, and the fit needs gradients
        shape = LOG_SHAPE.exp()[None, :, None]
        rate = shape / LOG_MEAN.exp()[:, None, None]
        below = torch.special.gammainc(shape.expand(len(LOG_MEAN), -1, len(_EDGES)), _EDGES * rate)
        below[..., -1] = 1.0
        return below.diff(dim=-1).float()


def table(integrand: Tensor) -> Tensor:
    """Expectation of a function of lambda, given by its values at the nodes, log means x log shapes."""
    return node_weights().to(integrand.device) @ integrand


def look_up(values: Tensor, log_mean: Tensor, log_shape: Tensor) -> Tensor:
    """Bilinear interpolation in a table, whose ends hold beyond it.

    ``log_mean`` may be cells x genes beside a ``log_shape`` of genes; else both have one shape.
    """
    by_gene = log_mean.ndim > log_shape.ndim
    i, row = _place(LOG_MEAN, log_mean)
    j, column = _place(LOG_SHAPE, log_shape.expand(log_mean.shape[-1:]) if by_gene else log_shape)
    if by_gene:  # each gene has one column of the table
        of_gene = torch.lerp(values.index_select(1, j), values.index_select(1, j + 1), column)
        return torch.lerp(of_gene.gather(0, i), of_gene.gather(0, i + 1), row)
    # One index for both axes: gathering and its gradient take a third of the time that two take.
    flat, width = values.flatten(), values.shape[1]
    corner = (i * width + j).flatten()
    ends = (flat.index_select(0, corner + at).view_as(row) for at in (0, 1, width, width + 1))
    lower, upper = torch.lerp(next(ends), next(ends), column), torch.lerp(next(ends), next(ends), column)
    return torch.lerp(lower, upper, row)


def _place(grid: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Number of the point of an even grid below each value, and how far to the next one it lies."""
    place = ((x - float(grid[0])) / float(grid[1] - grid[0])).clamp(0, len(grid) - 1.001)
    below = place.detach().long()
    return below, place - below


@lru_cache(maxsize=1)
def poisson_log1p() -> Tensor:
    """Mean of ``log(1 + count)`` of a Poisson count at each node; the log1p of its mean where that is large."""
    means, counts = NODES.double()[:, None], torch.arange(1.0, 600.0, dtype=torch.float64)
    probability = (torch.xlogy(counts, means) - means - torch.lgamma(counts + 1)).exp()
    exact = (probability * torch.log1p(counts)).sum(1)
    return torch.where(NODES < 300, exact.float(), torch.log1p(NODES))


class DropoutCurve(nn.Module):
    """The dropout curve, and each gene's mean and dispersion once what dropout took is accounted for.

    Fitted after training (:func:`~scgacl_scvi.module._dropout_fit.fit_dropout_curve`); all numbers are buffers.

    Parameters
    ----------
    n_genes
        Number of genes.
    """

    def __init__(self, n_genes: int):
        super().__init__()
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("coefficients", torch.zeros(2))  # a, b
        self.register_buffer("log_factor", torch.zeros(n_genes))  # from the generator's mean to m
        self.register_buffer("log_theta", torch.zeros(n_genes))

    def keep(self) -> Tensor:
        """Probability that an expression is not lost, at each node."""
        return keep_probability(self.coefficients)

    def lost_probability(self, expression: Tensor) -> Tensor:
        """Probability that dropout takes the count of an expression (counts at the cell's own depth)."""
        return torch.sigmoid(self.coefficients[0] + self.coefficients[1] * expression.clamp_min(_TINY).log())

    def corrected(self, mu: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (as ``mu``: cells x genes, counts) and inverse dispersion (genes) with what dropout took."""
        return (log_shifted(mu) + self.log_factor).exp(), self.log_theta.exp()

    def hidden_probability(self, mu: Tensor) -> Tensor:
        """Probability that a **zero** hides a count: that there was one, and that it was lost.

        Parameters
        ----------
        mu
            The generator's mean at the cell's own depth (counts), cells x genes.
        """
        return self._expect(mu, _hides_a_count) / self._expect(mu, _is_zero)

    def hidden_log1p(self, mu: Tensor) -> Tensor:
        """Mean of ``log(1 + count)`` of the count that was lost where a **zero** hides one; ``mu`` at any depth."""
        of_count = poisson_log1p().to(mu.device)
        return self._expect(mu, lambda lost, _: lost * of_count) / self._expect(mu, _hides_a_count)

    def zero_log1p(self, mu: Tensor, factor: float) -> Tensor:
        """Mean of ``log(1 + factor * lambda)`` behind a **zero**; ``mu`` as above, at any one depth."""
        value = self._expect(mu, lambda _, zero: torch.log1p(factor * NODES.to(mu.device)) * zero)
        return value / self._expect(mu, _is_zero)

    def zero_mean(self, mu: Tensor) -> Tensor:
        """Mean of lambda behind a **zero** (counts); ``mu`` as above, at any one depth."""
        return self._expect(mu, lambda _, zero: NODES.to(mu.device) * zero) / self._expect(mu, _is_zero)

    def zero_moments(self, mu: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of lambda behind a **zero** (counts, and their square)."""
        nodes, zero = NODES.to(mu.device), self._expect(mu, _is_zero)
        mean = self._expect(mu, lambda _, zero: nodes * zero) / zero
        second = self._expect(mu, lambda _, zero: nodes.square() * zero) / zero
        return mean, (second - mean.square()).clamp_min(0.0)

    def zero_present_mean(self, mu: Tensor) -> Tensor:
        """Mean of lambda behind a **zero** where it was not lost to dropout, else 0 (counts).

        Expected counts, once more, of a library in which what was lost stays lost.
        """
        nodes = NODES.to(mu.device)
        present = self._expect(mu, lambda lost, _: nodes * (1 - lost) * (1 - SHOWN.to(mu.device)))
        return present / self._expect(mu, _is_zero)

    def _expect(self, mu: Tensor, function) -> Tensor:
        """E[f], read from a table; ratios of two such have the tables' error in common.

        ``f`` is given at the nodes the probability that a count is lost there, and that of a zero there: a count that
        was lost, or one that was 0 anyway.
        """
        if not self.fitted:
            raise RuntimeError("The dropout curve is not fitted; train the model with `model.train()`.")
        lost = 1 - self.keep()
        integrand = function(lost, 1 - SHOWN.to(mu.device) * (1 - lost))
        return look_up((table(integrand) + _TINY).log(), log_shifted(mu) + self.log_factor, self.log_theta).exp()


def _is_zero(_: Tensor, zero: Tensor) -> Tensor:
    return zero


def _hides_a_count(lost: Tensor, _: Tensor) -> Tensor:
    return lost * SHOWN.to(lost.device)


def log_shifted(mu: Tensor) -> Tensor:
    """Log of a generator's mean (counts), held away from 0: what each gene's factor is multiplied with."""
    return (mu + _SHIFT).log()


def keep_probability(coefficients: Tensor) -> Tensor:
    """Probability that an expression is not lost to dropout, at each node."""
    return torch.sigmoid(-(coefficients[0] + coefficients[1] * LOG_NODES.to(coefficients.device)))
