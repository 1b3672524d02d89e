"""Maximum a posteriori fit of the dropout curve, given a trained generator's means."""

import torch
from torch import Tensor

from ._dropout_curve import SHOWN, DropoutCurve, keep_probability, look_up, table

FACTOR_SD, THETA_SD = 0.3, 0.1
"""Prior standard deviations of each gene's log factor, and of its log dispersion around the trend."""
_HINGE = 2.0  # log mean (7 counts) where the trend of the dispersion bends
_STEPS, _ENTRIES, _RATE = 200, 80_000, 0.06


def fit_dropout_curve(curve: DropoutCurve, x: Tensor, mu: Tensor, seed: int) -> None:
    """Fit a curve's coefficients, and each gene's mean and dispersion, to counts and a generator's means.

    The likelihood of a count above 0 is that of a negative binomial, times the probability that its expression (whose
    posterior is Gamma) was not lost; that of a zero is what remains. Dispersions follow a hinge in the gene's log mean,
    learnt from all genes: a gene of few counts cannot tell dispersion from dropout by itself. Adam on batches of cells.

    Parameters
    ----------
    curve
        Is filled.
    x
        Counts, cells x genes.
    mu
        The generator's mean at the cell's own depth (counts), cells x genes.
    seed
        Of the order of the cells.

    Raises
    ------
    RuntimeError
        If a mean is not finite.
    """
    if not torch.isfinite(mu).all():
        raise RuntimeError("The dropout curve needs finite means, but the generator's are not; see whether it trained.")
    n_cells, n_genes = x.shape
    log_mu = (mu + 1e-3).log()
    level = ((mu.mean(0) + 1e-3).log() - _HINGE) / 2
    coefficients, trend = _parameter(x, 0.0, 0.0), _parameter(x, 1.5, 0.0, 0.0)
    log_factor, deviation = (torch.zeros(n_genes, device=x.device, requires_grad=True) for _ in range(2))
    parameters = [coefficients, trend, log_factor, deviation]
    optimiser = torch.optim.Adam(parameters, lr=_RATE, betas=(0.9, 0.99))
    slowing = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda i: max(0.05, min(1.0, 2 - 2 * i / _STEPS)))
    size = min(n_cells, max(16, _ENTRIES // n_genes))
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(_STEPS):
        if len(order) < size:
            order = torch.randperm(n_cells, generator=generator)
        rows, order = order[:size].to(x.device), order[size:]
        log_theta = _on_trend(level, trend) + deviation
        likelihood = log_likelihood(x[rows], log_mu[rows] + log_factor, log_theta, coefficients)
        penalty = ((log_factor / FACTOR_SD).square() + (deviation / THETA_SD).square()).sum() / 2
        loss = (penalty - likelihood * (n_cells / size)) / x.numel()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        slowing.step()
    with torch.no_grad():
        curve.coefficients.copy_(coefficients)
        curve.log_factor.copy_(log_factor)
        curve.log_theta.copy_((_on_trend(level, trend) + deviation).clamp(-3.0, 9.0))
        curve.fitted.fill_(True)


def log_likelihood(x: Tensor, log_mean: Tensor, log_theta: Tensor, coefficients: Tensor) -> Tensor:
    """Log-likelihood of counts under Gamma expression, Poisson counting and the dropout curve; one number.

    Parameters
    ----------
    x, log_mean
        Counts and the log of their mean before dropout, cells x genes.
    log_theta
        Log inverse dispersion, genes.
    coefficients
        a and b of the curve.
    """
    keep = keep_probability(coefficients)
    cell, gene = torch.nonzero(x, as_tuple=True)
    count, mean, theta = x[cell, gene], log_mean[cell, gene].exp(), log_theta.exp()[gene]
    seen = (
        torch.lgamma(count + theta)
        - torch.lgamma(theta)
        - torch.lgamma(count + 1)
        + count * (mean / (mean + theta)).log()
        - theta * torch.log1p(mean / theta)
    )
    shape = count + theta  # of the expression's posterior, whose mean is shape * mean / (mean + theta)
    kept = look_up(table(keep), (shape * mean / (mean + theta)).log(), shape.log())
    cell, gene = torch.nonzero(x == 0, as_tuple=True)
    shown = look_up(table(SHOWN.to(x.device) * keep), log_mean[cell, gene], log_theta[gene])
    return (seen + kept.clamp_min(1e-9).log()).sum() + torch.log1p(-shown.clamp_max(1 - 1e-6)).sum()


def _on_trend(level: Tensor, trend: Tensor) -> Tensor:
    return trend[0] + trend[1] * level + trend[2] * level.clamp_max(0.0)


def _parameter(like: Tensor, *start: float) -> Tensor:
    return torch.tensor(start, device=like.device, requires_grad=True)
