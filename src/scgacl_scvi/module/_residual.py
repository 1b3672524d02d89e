"""How expression varies around its mean: a mixture of Gammas for each gene, and the posterior that follows from it."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ._nonzeros import positions
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

    @property
    def mean_ratio(self) -> Tensor:
        """Mean of each gene's distribution: what the expression is on average, over the mean, before any count."""
        if not self.fitted:
            return torch.ones_like(self.log_weight[0])
        weights = self.log_weight.exp()
        return weights[0] + LOG_RATIO.to(weights).exp() @ weights[1:]

    def posterior(self, x: Tensor, mean: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Shape and mean of the Gamma with the mean and the variance of the posterior of the expression.

        Parameters
        ----------
        x
            Counts (fractional where they were brought to another depth), cells x genes.
        mean
            Mean of the expression at the depth of ``x`` (counts), cells x genes.
        theta
            Inverse dispersion, genes or cells x genes.
        """
        if not self.fitted:
            return x + theta, shrunk_mean(x, mean, theta)
        x, mean = x.contiguous(), mean.clamp_min(1e-30)
        rows = max(1, _ENTRIES // mean.shape[1])
        of_rows = theta.expand_as(mean).split(rows)
        blocks, weights = zip(mean.split(rows), of_rows, strict=True), self.log_weight.exp()
        zeros = [_behind_zeros(*block, weights) for block in blocks]
        shape, ratio = (torch.cat(blocks) for blocks in zip(*zeros, strict=True))
        for entries in _whole_lanes(positions(x)).split(_COUNTS):
            count, own, of, gene = _at(entries, x, mean, theta)
            found = _given_counts(count, own, of, self.log_weight.index_select(1, gene))
            for filled, values in zip((shape, ratio), found, strict=True):
                filled.view(-1).index_copy_(0, entries, values)
        return shape, ratio * mean

    def behind_zeros(self, mean: Tensor, theta: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`posterior` of some entries only, whose counts are 0; arguments as there.

        ``index``: their positions in ``mean`` as one row after the other. One value for each.
        """
        mean, theta, gene = _at(index, mean, theta)
        if not self.fitted:
            return theta, shrunk_mean(torch.zeros_like(mean), mean, theta)
        found = [_behind_zeros(*block, weights) for *block, weights in self._blocks(gene, mean.clamp_min(1e-30), theta)]
        shape, ratio = (torch.cat(blocks) for blocks in zip(*found, strict=True))
        return shape, ratio * mean

    def shown_again(self, mean: Tensor, more: Tensor, theta: Tensor, index: Tensor | None = None) -> Tensor:
        """Probability that an entry whose count is 0 shows one in a second, independent look.

        Exact for the mixture.

        Parameters
        ----------
        mean, more
            Mean of the counts of the first look and of the second, cells x genes.
        theta
            Inverse dispersion, genes or cells x genes.
        index
            Positions of the entries that are asked for, in a row; None: all, cells x genes.
        """
        shape = mean.shape if index is None else index.shape
        index = torch.arange(mean.numel(), device=mean.device) if index is None else index
        first, second, theta, gene = _at(_whole_lanes(index), mean, more, theta)
        if self.fitted:
            blocks = self._blocks(gene, first, second, theta)
            found = torch.cat([_shown_again(*block, weights) for *block, weights in blocks])
        else:
            found = _shown_by_gamma(first, second, theta)
        return found[: len(index)].view(shape)

    def drawn(self, x: Tensor, mean: Tensor, theta: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Shape and mean of the posterior under one component for each entry, drawn by how probable each is.

        Arguments as of :meth:`posterior`.
        """
        if not self.fitted:
            return self.posterior(x, mean, theta)
        height = torch.rand(x.shape, generator=generator, device=x.device)
        number = torch.empty(x.shape, dtype=torch.int64, device=x.device)
        zero, weights, columns = x == 0, self.log_weight.exp(), (mean.clamp_min(1e-30), theta, x, height)
        for index in positions(zero).split(_ENTRIES // 4):
            own, of, _, at, gene = _at(index, *columns)
            probability = _zero_joint(own, of, weights.index_select(1, gene))
            number.view(-1).index_copy_(0, index, _number_at(at, probability))
        for index in positions(~zero).split(_COUNTS):
            own, of, count, at, gene = _at(index, *columns)
            log_joint = component_log_prob(count, own, of).add_(self.log_weight.index_select(1, gene))
            number.view(-1).index_copy_(0, index, _number_at(at, torch.softmax(log_joint, 0)))
        mean = mean * torch.cat([LOG_RATIO.new_zeros(1), LOG_RATIO]).exp().to(mean)[number]
        shape = torch.where(number > 0, SHAPE, theta)
        return x + shape, (x + shape) / (mean + shape) * mean

    def _blocks(self, gene: Tensor, *columns: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Some entries of a row at a time, last the weights of their genes (components x entries)."""
        weights = self.log_weight.exp()
        for *block, genes in zip(*(column.split(_ENTRIES) for column in (*columns, gene)), strict=True):
            yield *block, weights.index_select(1, genes)


def _at(index: Tensor, first: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Entries of arrays of cells x genes (or genes) at some positions, last their genes."""
    gene = index % first.shape[1]
    where = [index if array.dim() > 1 else gene for array in (first, *others)]
    found = (array.reshape(-1).index_select(0, at) for array, at in zip((first, *others), where, strict=True))
    return *found, gene


def _ratios(like: Tensor) -> Tensor:
    return LOG_RATIO.to(like).exp()[:, None]


def _to_the_shape(x: Tensor) -> Tensor:
    """``x ** SHAPE``."""
    return x.square().square_().square_()


def _zero_joint(mean: Tensor, theta: Tensor, weights: Tensor) -> Tensor:
    """Probability of each component and of a zero under it, of entries in a row, components x entries."""
    others = _to_the_shape((mean * (_ratios(mean) / SHAPE)).add_(1).reciprocal_())
    return torch.cat([_zero_probability(mean, theta)[None], others]).mul_(weights)


def _number_at(height: Tensor, probability: Tensor) -> Tensor:
    """Number of the component at a height (0 to 1) of the probabilities piled up, components x entries."""
    below = probability.cumsum(0)
    return (below[:-1] <= height * below[-1]).sum(0)


def _shown_by_gamma(first: Tensor, second: Tensor, theta: Tensor) -> Tensor:
    """:meth:`ResidualMixture.shown_again` where the expression is Gamma."""
    return -torch.expm1(-theta * torch.log1p(second / (first + theta)))


def _shown_again(first: Tensor, second: Tensor, theta: Tensor, weights: Tensor) -> Tensor:
    """:meth:`ResidualMixture.shown_again` of entries in a row."""
    weight, *others = weights
    zero = weight * _zero_probability(first, theta)
    shown = zero * _shown_by_gamma(first, second, theta)
    for weight, of_mean in zip(others, (LOG_RATIO.exp() / SHAPE).tolist(), strict=True):
        once = (first * of_mean).add_(1)
        probability = _to_the_shape(once.reciprocal()).mul_(weight)
        zero += probability
        part = second * of_mean
        both = once + part
        left, part = once.div_(both), part.div_(both)
        # 1 - left ** SHAPE as a product, since most probabilities are too small for a difference.
        for _ in range(int(math.log2(SHAPE))):
            part.mul_(left + 1)
            left.square_()
        shown += part.mul_(probability)
    return shown.div_(zero.clamp_min_(1e-37))


def _behind_zeros(mean: Tensor, theta: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and mean over ``mean`` as if all counts were 0: most are, and it takes no gamma function."""
    first, *others = weights
    ratio = theta / (mean + theta)
    total = first * _zero_probability(mean, theta)
    once = total * ratio
    twice_first = once * ratio * (1 + 1 / theta)
    twice = torch.zeros_like(once)
    for weight, of_mean in zip(others, LOG_RATIO.exp().tolist(), strict=True):
        left = (mean * (of_mean / SHAPE)).add_(1).reciprocal_()
        probability = _to_the_shape(left).mul_(weight)
        total += probability
        ratio = left.mul_(of_mean)
        probability.mul_(ratio)
        once += probability
        twice += probability.mul_(ratio)
    total.clamp_min_(1e-37)
    ratio = once.div_(total)
    square = ratio.square()
    twice.mul_(1 + 1 / SHAPE).add_(twice_first).div_(total)
    return square / (twice - square).maximum(1e-6 * square), ratio


def _given_counts(x: Tensor, mean: Tensor, theta: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """The same of entries in a row given their counts, with the weights of their genes (components x entries)."""
    probability = torch.softmax(component_log_prob(x, mean, theta).add_(log_weight), 0)
    ratios = _ratios(mean)
    of_each = torch.cat([((x + theta) / (mean + theta))[None], (x + SHAPE) / (mean * ratios).add_(SHAPE) * ratios])
    ratio = (probability * of_each).sum(0)
    within = of_each.square()
    within[0] /= x + theta
    within[1:] /= x + SHAPE
    variance = within.add_(of_each.sub_(ratio).square_()).mul_(probability).sum(0)
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


def component_log_prob(x: Tensor, mean: Tensor, theta: Tensor) -> Tensor:
    """Log-probability of counts of entries in a row under each component, but for a constant; components x entries."""
    shape = torch.full((), SHAPE).to(theta)
    # The shape of all but the first is the same, and lgamma takes longest.
    first, others = (torch.lgamma(x + of) - torch.lgamma(of) for of in (theta, shape))
    log_mean = torch.log(mean)
    first += x * (log_mean - theta.log()) - (x + theta) * torch.log1p(mean / theta)
    others += x * (log_mean - math.log(SHAPE))
    ratios = LOG_RATIO.to(mean)[:, None]
    of_others = torch.log1p(mean * (ratios.exp() / SHAPE)).mul_(-(x + SHAPE)).add_(x * ratios).add_(others)
    return torch.cat([first[None], of_others])
