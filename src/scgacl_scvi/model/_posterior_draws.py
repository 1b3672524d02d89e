"""The posterior of the expression given z and the entry's own count: moments and draws, tensors only.

At any one depth; ``x`` and ``mean`` are cells x genes, counts (fractional where they were brought to another depth).
"""

import torch
from torch import Tensor

from scgacl_scvi.module import VaDE

from ._values import before_dropout


def moments(
    module: VaDE, x: Tensor, mean: Tensor, theta: Tensor, missing: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the expression, given the count or over what a zero may hide.

    Of ``missing`` genes (1 x genes) those of the prior.
    """
    shape, value = module.residual.posterior(x, mean, theta)
    variance = value.square() / shape
    if module.dropout_curve is not None:
        behind_zero, its_variance = module.dropout_curve.zero_moments(mean)
        value, variance = torch.where(x > 0, value, behind_zero), torch.where(x > 0, variance, its_variance)
    if missing is None:
        return value, variance
    prior, prior_theta = before_dropout(module, mean, theta)
    return torch.where(missing, prior, value), torch.where(missing, prior.square() / prior_theta, variance)


def draw_expression(
    module: VaDE,
    x: Tensor | None,
    mean: Tensor,
    theta: Tensor,
    generator: torch.Generator,
    *,
    hidden: Tensor | None = None,
    missing: Tensor | None = None,
) -> Tensor:
    """Draw the expression given the count; ``x=None``, and for ``missing`` genes (1 x genes): given z only.

    A zero under the dropout curve is a count that was lost or one that was 0 anyway. Its expression is drawn from the
    prior until it is one that leaves a zero, which happens with probability P(zero); after 50 rounds what is left
    keeps the mean, which concerns entries whose zero is next to impossible.

    Parameters
    ----------
    hidden
        Is filled, where given (bool, cells x genes): whether dropout struck at a zero.
    """
    if x is None:
        mean, theta = before_dropout(module, mean, theta)
        return _gamma(theta.expand_as(mean), generator) * (mean / theta)
    # Under a mixture each entry draws its component first: one that is on or off is not drawn as half on.
    shape, value = module.residual.drawn(x, mean, theta, generator)
    drawn = _gamma(shape, generator) * (value / shape)
    if module.dropout_curve is not None:
        cell, gene = torch.nonzero(x == 0, as_tuple=True)
        drawn[cell, gene], lost = _behind_zero(module, mean, cell, gene, generator)
        if hidden is not None:
            hidden[cell, gene] = lost
    if missing is None:
        return drawn
    return torch.where(missing, draw_expression(module, None, mean, theta, generator), drawn)


def draw_counts(module: VaDE, x: Tensor | None, own: dict, generator: torch.Generator, *, dropout: bool) -> Tensor:
    """Draw counts at the cell's own depth, given the entry's own count (``x``) or z only (None)."""
    hidden = torch.zeros(own["rate"].shape, dtype=torch.bool, device=own["rate"].device)
    expression = draw_expression(module, x, own["rate"], own["theta"], generator, hidden=hidden, missing=own["missing"])
    counts = torch.poisson(expression, generator=generator)
    if dropout and x is None:
        hidden = _uniform(expression, generator) < module.dropout_curve.lost_probability(expression)
    counts = torch.where(hidden, 0.0, counts) if dropout else counts
    return torch.where(module.gene_seen, counts, 0.0)


def _behind_zero(module: VaDE, mean: Tensor, cell: Tensor, gene: Tensor, generator) -> tuple[Tensor, Tensor]:
    """Expression behind zeros by rejection, and whether dropout struck there (also where there was nothing to take)."""
    curve = module.dropout_curve
    before, theta = curve.corrected(mean)
    before, theta = before[cell, gene], theta[gene]
    expression, lost = curve.zero_mean(mean)[cell, gene], torch.ones_like(cell, dtype=torch.bool)
    left = torch.arange(len(cell), device=cell.device)
    for _ in range(50):
        tried = _gamma(theta[left], generator) * (before[left] / theta[left])
        shown = torch.poisson(tried, generator=generator) > 0
        taken = _uniform(tried, generator) < curve.lost_probability(tried)
        done = ~shown | taken
        expression[left[done]], lost[left[done]] = tried[done], taken[done]
        left = left[~done]
        if not len(left):
            break
    return expression, lost


def _gamma(shape: Tensor, generator: torch.Generator) -> Tensor:
    return torch._standard_gamma(shape.contiguous(), generator=generator)


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, device=like.device)
