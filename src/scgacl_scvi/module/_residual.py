"""How expression varies around its mean: a mixture of Gammas for each gene, and the posterior that follows from it."""

import torch
from torch import Tensor, nn

from ._likelihoods import nb_zero_log_prob
from ._nonzeros import Nonzeros
from ._posterior import shrunk_mean

LOG_RATIO = torch.arange(-6.0, 4.0, 0.75)
"""Means of the components beside the first, on the log scale, to the entry's own."""
SHAPE = 8.0
"""Their shape: neighbours overlap, so that no value of the posterior is favoured."""
_ENTRIES = 65_536  # at a time: as many as a processor's cache holds
_COUNTS = 2048  # the same for counts above 0; with all components too few for PyTorch to share out among threads
_LANES = 64


class ResidualMixture(nn.Module):
    """Distribution over cells of the ratio of the expression to its mean, for each gene.

    A Gamma has one shape for all that a mean leaves unexplained. But a gene may be on in some cells and off in others
    where the mean does not say so: because it keeps its own (the gate), or because the latent space misses it. The
    mixture's first component is that Gamma, of mean 1 and shape theta; the others have the means ``exp(LOG_RATIO)`` and
    the shape :data:`SHAPE`. Nothing but the entry's own count says which one it is, so no other gene enters.

    Fitted after training (:func:`~scgacl_scvi.train._residual_fit.fit_residuals`); until then the first one is alone.

    Parameters
    ----------
    n_genes
        Number of genes.
    """

    def __init__(self, n_genes: int):
        super().__init__()
        self.register_buffer("fitted", torch.tensor(False))
        log_weight = torch.full((1 + len(LOG_RATIO), n_genes), -torch.inf)
        log_weight[0] = 0.0
        self.register_buffer("log_weight", log_weight)

    def posterior(self, x: Tensor, mean: Tensor, theta: Tensor, where: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Shape and mean of the Gamma with the mean and the variance of the posterior of the expression.

        Parameters
        ----------
        x
            Counts (fractional where they were brought to another depth), cells x genes.
        mean
            Mean of the expression at the depth of ``x`` (counts), cells x genes.
        theta
            Inverse dispersion, genes or cells x genes.
        where
            Entries that are asked for (bool); others are the first component's. None: all.
        """
        if not self.fitted:
            return x + theta, shrunk_mean(x, mean, theta)
        x, mean = x.contiguous(), mean.clamp_min(1e-30)
        theta = theta.expand_as(mean)
        if where is None:
            rows = max(1, _ENTRIES // mean.shape[1])
            blocks, weights = zip(mean.split(rows), theta.split(rows), strict=True), self.log_weight.exp()
            zeros = [_behind_zeros(*block, weights) for block in blocks]
            shape, ratio = (torch.cat(blocks) for blocks in zip(*zeros, strict=True))
            index = Nonzeros(x).index
        else:
            shape, ratio = x + theta, (x + theta) / (mean + theta)
            index = torch.nonzero(where.reshape(-1)).squeeze(1)
        for entries in _whole_lanes(index).split(_COUNTS):
            gene = entries % mean.shape[1]
            count, own, own_theta = (values.reshape(-1).index_select(0, entries) for values in (x, mean, theta))
            found = _given_counts(count, own, own_theta, self.log_weight.index_select(1, gene))
            for filled, values in zip((shape, ratio), found, strict=True):
                filled.view(-1).index_copy_(0, entries, values)
        return shape, ratio * mean


def _behind_zeros(mean: Tensor, theta: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and mean over ``mean`` as if all counts were 0: most are, and it takes no gamma function."""
    first, *others = weights
    ratio = theta / (mean + theta)
    total = first * _zero_probability(mean, theta)
    once = total * ratio
    twice = once * ratio * (1 + 1 / theta)
    for weight, of_mean in zip(others, LOG_RATIO.exp().tolist(), strict=True):
        left = SHAPE / (mean * of_mean + SHAPE)
        ratio = left * of_mean
        probability = left.square_().square_().square_().mul_(weight)  # to the power SHAPE
        total += probability
        once += probability.mul_(ratio)
        twice += probability.mul_(ratio).mul_(1 + 1 / SHAPE)
    total.clamp_min_(1e-37)
    ratio = once.div_(total)
    square = ratio.square()
    return square / (twice.div_(total) - square).maximum(1e-6 * square), ratio


def _given_counts(x: Tensor, mean: Tensor, theta: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """The same of entries in a row given their counts, with the weights of their genes (components x entries)."""
    probability = torch.softmax(component_log_prob(x, mean, theta) + log_weight, 0)
    means, shapes = _components(mean, theta)
    of_each = (x + shapes) / (means + shapes) * (means / mean)
    ratio = (probability * of_each).sum(0)
    variance = (probability * (of_each.square() / (x + shapes) + (of_each - ratio).square())).sum(0)
    return ratio.square() / variance, ratio


def _whole_lanes(x: Tensor) -> Tensor:
    """A row of entries with the first one repeated at its end, to a whole number of vectors of any processor.

    Vectorised code computes the last few of an array by other instructions, and the same entry would differ in its last
    bit by where it stands.
    """
    return torch.cat([x, x[:1].expand(-len(x) % _LANES)]) if len(x) else x


def _zero_probability(mean: Tensor, theta: Tensor) -> Tensor:
    ratio = _whole_lanes((mean / theta).reshape(-1))
    exponent = _whole_lanes((-theta).expand_as(mean).reshape(-1))
    return (torch.log1p(ratio) * exponent).exp()[: mean.numel()].view_as(mean)


def _components(mean: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Means and shapes of the components of entries in a row, components x entries."""
    ratios = LOG_RATIO.to(mean).exp()[:, None]
    return torch.cat([mean[None], mean * ratios]), torch.cat([theta[None], torch.full_like(mean * ratios, SHAPE)])


def component_log_prob(x: Tensor, mean: Tensor, theta: Tensor) -> Tensor:
    """Log-probability of counts of entries in a row under each component, but for a constant; components x entries."""
    means, shapes = _components(mean, theta)
    # The shape of all but the first is the same, and lgamma takes longest.
    first, others = (torch.lgamma(x + shape) - torch.lgamma(shape) for shape in (theta, torch.tensor(SHAPE)))
    excess = torch.cat([first[None], others.expand(len(LOG_RATIO), -1)])
    return excess + nb_zero_log_prob(means, shapes) + x * torch.log(means / (means + shapes))
