"""What one count says about the expression behind it, given the generator's mean.

With ``x ~ Poisson(expression)`` and ``expression ~ Gamma(theta, theta / mu)``, the posterior of the expression is
``Gamma(x + theta, theta / mu + 1)``. A zero may also be a dropout, which says nothing: then the prior stays. (With
``"nb"`` a gene has a mixture of such priors: :class:`~scgacl_scvi.module._residual.ResidualMixture`.)
All functions broadcast over cells x genes and are on the counts scale, at the depth of ``mu`` and ``x``.
"""

import torch
from torch import Tensor

from ._likelihoods import nb_zero_log_prob
from ._nonzeros import Nonzeros


def shrunk_mean(x: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
    """Posterior mean of the expression where the count is not a dropout: ``(x + theta) / (mu + theta) * mu``."""
    return (x + theta) / (mu + theta) * mu


def dropout_probability(mu: Tensor, theta: Tensor, zi_logits: Tensor) -> Tensor:
    """Probability that the zero of a zero-inflated NB came from the inflation: ``pi / (pi + (1 - pi) NB(0))``.

    Not that a count was lost: an inflated entry may have been 0 anyway. See
    :class:`~scgacl_scvi.module._dropout_curve.DropoutCurve`.
    """
    return torch.sigmoid(zi_logits - nb_zero_log_prob(mu, theta))


def expected_log1p_gamma(shape: Tensor, mean: Tensor, unit: Tensor | None = None) -> Tensor:
    """``E[log(1 + g)]`` of a gamma of the given shape and mean, to about 1e-4.

    With ``unit``, of the same in units drawn at random: ``unit`` times a Poisson count whose mean is the gamma over it.
    From Frullani's ``log(1 + g) = int_0^inf (1 - exp(-t g)) exp(-t) / t dt`` follows, with the gamma's Laplace
    transform, an integral that is smooth in ``u = log t``; the trapezoid rule converges geometrically on it.
    """
    scale = mean / shape
    # Below exp(low) the integrand is under mean * exp(u) < 1e-6; above exp(4), exp(-t) is 0 in single precision.
    low = min(-14.0, -14.0 - float(mean.max().clamp_min(1e-30).log())) if mean.numel() else -14.0
    step = 0.5
    total = torch.zeros_like(mean)
    for u in torch.arange(low, 4.0, step).tolist():
        t = torch.tensor(u, dtype=torch.float64).exp().item()
        reached = t * scale if unit is None else -torch.expm1(-t * unit) / unit * scale
        total += -torch.expm1(-shape * torch.log1p(reached)) * (torch.exp(torch.tensor(-t)).item() * step)
    return total


def posterior_log1p(
    x: Tensor,
    mu: Tensor,
    theta: Tensor,
    p_dropout: Tensor | None = None,
    *,
    factor: Tensor | float = 1.0,
    unit: Tensor | None = None,
) -> Tensor:
    """Posterior mean of ``log(1 + factor * expression)``; at most the log1p of the posterior mean (Jensen).

    With ``unit`` (cells x 1), of a new count whose single molecule is ``unit`` on the scale of ``factor * expression``,
    which is its mean.
    """
    theta = theta.expand_as(mu)
    kept = expected_log1p_gamma(x + theta, factor * shrunk_mean(x, mu, theta), unit)
    if p_dropout is None:
        return kept
    return torch.where(x > 0, kept, torch.lerp(kept, expected_log1p_gamma(theta, factor * mu, unit), p_dropout))


def heldout_log_density(
    test: Tensor, x: Tensor, mu: Tensor, theta: Tensor, ratio: float, p_dropout: Tensor | None = None
) -> Tensor:
    """Log predictive density of held-out molecules of each cell, dropout included.

    The molecules of a cell were split: ``x`` was seen, ``test`` held out. The expression's posterior given ``x``
    makes ``test`` negative-binomial with mean ``ratio * shrunk_mean`` and inverse dispersion ``x + theta``. A dropout
    came before the split, so it leaves *both* halves at zero: where ``x`` is zero, a zero in ``test`` is certain
    with probability ``p_dropout``.

    Parameters
    ----------
    test
        Held-out counts, cells x genes.
    x
        Counts the model saw, cells x genes.
    mu, theta
        The generator's mean at the depth of ``x``, and the inverse dispersion.
    ratio
        Expected held-out molecules for each molecule seen, e.g. ``.1 / .9``.
    p_dropout
        Probability that a zero of ``x`` is a dropout, or None.

    Returns
    -------
    Log-density summed over genes, one value a cell.
    """
    shape = x + theta
    mean = ratio * shrunk_mean(x, mu, theta)
    log_p = nb_zero_log_prob(mean, shape)
    nonzeros = Nonzeros(test)  # few; a zero needs no gamma function
    t, own, expected = nonzeros.values, nonzeros.of(shape), nonzeros.of(mean)
    excess = torch.lgamma(t + own) - torch.lgamma(own) - torch.lgamma(t + 1)
    nonzeros.add_to(log_p, excess + t * (torch.log(expected + 1e-8) - torch.log(own + expected)))
    if p_dropout is not None:
        certain = torch.where(test > 0, -torch.inf, torch.log(p_dropout + 1e-12))
        mixed = torch.logaddexp(certain, torch.log1p(-p_dropout.clamp_max(1 - 1e-6)) + log_p)
        log_p = torch.where(x > 0, log_p, mixed)
    return log_p.sum(-1)
