"""Variational fit of the dropout curve, given a trained generator's means."""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from ._dropout_curve import SHOWN, DropoutCurve, keep_probability, log_shifted, look_up, table

_STEPS, _ENTRIES = 500, 40_000
_RATE, _COMMON_RATE = 0.06, 0.18  # of numbers of a gene, and of those that all genes share
_START_LEVEL = 0.05  # counts; a gene whose mean lies far below starts here, not at the end of the scale


class _Normals:
    """One number for each gene, its posterior a normal."""

    def __init__(self, start: Tensor, sd: float):
        self.mean = start.clone().requires_grad_()
        self.log_sd = torch.full_like(start, sd).log().requires_grad_()

    def draw(self, generator: torch.Generator) -> Tensor:
        noise = torch.randn(len(self.mean), generator=generator).to(self.mean)
        return self.mean + self.log_sd.exp() * noise


def fit_dropout_curve(curve: DropoutCurve, x: Tensor, mu: Tensor, seed: int) -> None:
    """Fit a curve's coefficients, and each gene's mean and dispersion, to counts and a generator's means.

    The likelihood of a count above 0 is that of a negative binomial, times the probability that its expression (whose
    posterior is Gamma) was not lost; that of a zero is what remains. Means before dropout are log-normal over genes;
    dispersions follow ``a + b / sqrt(mean) + c / mean``, log-normal around it: both distributions are learnt from all
    genes, since one of few counts cannot tell low expression, dispersion and dropout apart.

    What belongs to a gene has a normal posterior, not one value. Were the likelihood maximised over hundreds of such
    numbers, those that all genes share would be biased (Neyman & Scott 1948): on simulations the curve was flatter than
    the truth, and the probability of a dropout off by up to .2. Evidence lower bound, one draw a step, Adam on batches
    of cells.

    Parameters
    ----------
    curve
        Is filled; each gene's mean with the posterior mean.
    x
        Counts, cells x genes.
    mu
        The generator's mean at the cell's own depth (counts), cells x genes.
    seed
        Of the order of the cells and of the draws.

    Raises
    ------
    RuntimeError
        If a mean is not finite.
    """
    if not torch.isfinite(mu).all():
        raise RuntimeError("The dropout curve needs finite means, but the generator's are not; see whether it trained.")
    n_cells = len(x)
    batches = _batches(x, log_shifted(mu), seed)
    level = log_shifted(mu).mean(0)
    coefficients = _parameter(x, 0.0, 0.0)
    trend = _parameter(x, -3.0, -1.0, 0.0)  # logs of a, b, c
    population = _parameter(x, 1.0, 0.5)  # mean and log sd of the log means
    spread = _parameter(x, -2.3)  # log sd of the log dispersions around their trend
    factor = _Normals((mu.mean(0) + _START_LEVEL).log() - level, 0.13)
    deviation = _Normals(torch.zeros_like(level), 0.05)
    genes = [factor.mean, factor.log_sd, deviation.mean, deviation.log_sd]
    common = [coefficients, trend, population, spread]
    optimiser = torch.optim.Adam(
        [{"params": genes, "lr": _RATE}, {"params": common, "lr": _COMMON_RATE}], betas=(0.9, 0.99), fused=True
    )
    slowing = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda i: max(0.05, min(1.0, 2 - 2 * i / _STEPS)))
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    for _ in range(_STEPS):
        order = order or torch.randperm(len(batches), generator=generator).tolist()
        batch = batches[order.pop()]
        log_factor, off_trend = factor.draw(generator), deviation.draw(generator)
        log_theta = _on_trend(level + log_factor, trend) + off_trend
        likelihood = batch.log_likelihood(log_factor, log_theta, coefficients)
        divergence = (
            _minus_log_normal(level + log_factor, population[0], population[1])
            + _minus_log_normal(off_trend, 0.0, spread)
            - factor.log_sd.sum()
            - deviation.log_sd.sum()
        )
        loss = (divergence - likelihood * (n_cells / len(batch.log_mu))) / x.numel()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        slowing.step()
    with torch.no_grad():
        log_factor = factor.mean + factor.log_sd.exp().square() / 2
        curve.coefficients.copy_(coefficients)
        curve.log_factor.copy_(log_factor)
        curve.log_theta.copy_((_on_trend(level + log_factor, trend) + deviation.mean).clamp(-3.0, 9.0))
        curve.fitted.fill_(True)


class _Batch:
    """Some cells, and where their counts are."""

    def __init__(self, x: Tensor, log_mu: Tensor):
        self.log_mu, self.is_zero = log_mu, (x == 0).to(x.dtype)
        cell, self.gene = torch.nonzero(x, as_tuple=True)
        self.count, self.log_mu_seen = x[cell, self.gene], log_mu[cell, self.gene]
        self.log_factorial = torch.lgamma(self.count + 1)

    def log_likelihood(self, log_factor: Tensor, log_theta: Tensor, coefficients: Tensor) -> Tensor:
        """Log-likelihood under Gamma expression, Poisson counting and the dropout curve; one number.

        Parameters
        ----------
        log_factor, log_theta
            Of each gene: what its mean is multiplied with (a logarithm), and its log inverse dispersion.
        coefficients
            a and b of the curve.
        """
        keep = keep_probability(coefficients)
        at = partial(torch.index_select, dim=0, index=self.gene)
        theta_of_gene = log_theta.exp()
        count, theta, log_ratio = self.count, at(theta_of_gene), self.log_mu_seen + at(log_factor - log_theta)
        excess, log_share = (
            softplus(log_ratio),
            logsigmoid(log_ratio),
        )  # log(1 + mean / theta), log(mean / (mean + theta))
        shape = count + theta  # of the expression's posterior, whose mean is shape * mean / (mean + theta)
        log_shape = shape.log()
        seen = torch.lgamma(shape) - at(torch.lgamma(theta_of_gene)) - self.log_factorial
        seen = seen + count * log_share - theta * excess
        kept = look_up(table(keep), log_shape + log_share, log_shape)
        shown = look_up(table(SHOWN.to(keep) * keep), self.log_mu + log_factor, log_theta)
        zero = torch.log1p(-shown.clamp_max(1 - 1e-6)) * self.is_zero
        return (seen + kept.clamp_min(1e-9).log()).sum() + zero.sum()


def log_likelihood(x: Tensor, log_mean: Tensor, log_theta: Tensor, coefficients: Tensor) -> Tensor:
    """Log-likelihood of counts given the log of their means before dropout (cells x genes); see :class:`_Batch`."""
    return _Batch(x, log_mean).log_likelihood(torch.zeros_like(log_theta), log_theta, coefficients)


def _batches(x: Tensor, log_mu: Tensor, seed: int) -> list[_Batch]:
    """Cells in batches of about :data:`_ENTRIES` entries, always the same ones together."""
    n = -(-x.numel() // _ENTRIES)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    return [_Batch(x[rows], log_mu[rows]) for rows in order.chunk(n)]


def _on_trend(log_mean: Tensor, trend: Tensor) -> Tensor:
    """Log inverse dispersion of genes of a mean."""
    constant, root, inverse = trend.exp()
    return -(constant + root * (-log_mean / 2).exp() + inverse * (-log_mean).exp()).log()


def _minus_log_normal(value: Tensor, mean: Tensor | float, log_sd: Tensor) -> Tensor:
    """Minus log density of a normal, summed, but for a constant."""
    return (((value - mean) * (-log_sd).exp()).square() / 2 + log_sd).sum()


def _parameter(like: Tensor, *start: float) -> Tensor:
    return torch.tensor(start, device=like.device, requires_grad=True)
