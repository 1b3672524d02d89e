"""Log-likelihoods of counts and of lognorm values, summed over genes.

Sums over counts spend ``lgamma`` on the non-zeros only: nine entries in ten of a typical batch are zeros, whose
probability needs one ``log1p``.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ._count_gradients import EPS, NBLogLikelihood, ZINBLogLikelihood
from ._nonzeros import Nonzeros


def nb_zero_log_prob(mu: Tensor, theta: Tensor) -> Tensor:
    """Log-probability of a zero under a negative binomial of mean ``mu`` and inverse dispersion ``theta``.

    Broadcasts; equals ``theta * log(theta / (theta + mu))``.
    """
    return -theta * torch.log1p(mu / theta)


def nb_nonzero_excess(x: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
    """What the log-probability of ``x`` has beyond that of a zero, without the constant ``-lgamma(x + 1)``."""
    return torch.lgamma(x + theta) - torch.lgamma(theta) + x * (torch.log(mu + EPS) - torch.log(theta + mu + EPS))


def nb_log_likelihood(
    x: Tensor, mu: Tensor, theta: Tensor, visible: Tensor | None = None, nonzeros: Nonzeros | None = None
) -> Tensor:
    """Negative-binomial log-likelihood of each cell.

    Parameters
    ----------
    x
        Counts, cells x genes.
    mu
        Mean at the cell's own depth (counts), cells x genes.
    theta
        Inverse dispersion, genes or cells x genes.
    visible
        Entries that count, cells x genes; None for all.
    nonzeros
        Non-zeros of ``x`` that count, where they are known.

    Returns
    -------
    Log-likelihood summed over genes, one value a cell.
    """
    visible = _as_mask(visible, mu)
    return NBLogLikelihood.apply(nonzeros or Nonzeros(x, visible), mu, theta, visible)


def zinb_log_likelihood(
    x: Tensor,
    mu: Tensor,
    theta: Tensor,
    zi_logits: Tensor,
    visible: Tensor | None = None,
    nonzeros: Nonzeros | None = None,
) -> Tensor:
    """Zero-inflated negative-binomial log-likelihood of each cell.

    Parameters
    ----------
    x, mu, theta
        As in :func:`nb_log_likelihood`; ``mu`` is the mean *without* dropout.
    zi_logits
        Logits of the dropout probability, cells x genes.
    visible, nonzeros
        As in :func:`nb_log_likelihood`.

    Returns
    -------
    Log-likelihood summed over genes, one value a cell.
    """
    visible = _as_mask(visible, mu)
    return ZINBLogLikelihood.apply(nonzeros or Nonzeros(x, visible), mu, theta, zi_logits.to(mu.dtype), visible)


def _as_mask(visible: Tensor | None, like: Tensor) -> Tensor | None:
    """As numbers: to multiply by them is four times as fast as by a bool."""
    return None if visible is None else visible.to(like.dtype)


def entry_log_prob(
    x: Tensor, mu: Tensor, theta: Tensor, zi_logits: Tensor | None = None, nonzeros: Nonzeros | None = None
) -> Tensor:
    """Log-probability of each count under the (zero-inflated) negative binomial; arguments as above, cells x genes."""
    log_p = nb_zero_log_prob(mu, theta)
    seen = nonzeros or Nonzeros(x)
    counts = seen.values
    seen.add_to(log_p, nb_nonzero_excess(counts, seen.of(mu), seen.of(theta.expand_as(mu))))
    seen.add_to(log_p, -torch.lgamma(counts + 1))
    if zi_logits is None:
        return log_p
    kept = F.logsigmoid(-zi_logits) + log_p
    return torch.where(x > 0, kept, torch.logaddexp(F.logsigmoid(zi_logits), kept))


def masked_normal_log_likelihood(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Gaussian log-likelihood of the *observed* (non-zero) lognorm values of each cell; zeros say nothing.

    Parameters
    ----------
    x
        Lognorm values, cells x genes.
    mean
        Mean (lognorm), cells x genes.
    scale
        Standard deviation (lognorm), genes or cells x genes.

    Returns
    -------
    Log-likelihood summed over the observed genes, one value a cell.
    """
    log_prob = -0.5 * ((x - mean) / scale).square() - torch.log(scale) - 0.5 * math.log(2 * math.pi)
    return torch.where(x > 0, log_prob, 0.0).sum(-1)


def masked_squared_error(x: Tensor, mean: Tensor) -> Tensor:
    """Squared error on the observed (non-zero) lognorm values, averaged over **all** genes (scGACL, phase 1 to 3).

    Against a KL summed over latent dimensions this average lets the KL outweigh the data by about the number of
    genes, which collapses the posterior; it is here for ``preset="paper"`` only.
    """
    return torch.where(x > 0, (x - mean).square(), 0.0).mean(-1)
