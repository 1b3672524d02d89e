"""Fit of the distribution of each gene's expression around its mean, by the counts that training saw."""

from collections.abc import Iterable

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from torch import Tensor

from scgacl_scvi.module import VaDE
from scgacl_scvi.module._at_mean import at_posterior_mean
from scgacl_scvi.module._residual import LOG_RATIO, component_log_prob

MAX_CELLS = 20_000
"""Cells from which the distributions are learnt at most; a random sample of more."""

_WIDTH = 0.5  # of the classes of log means: entries of a class and a count are taken together
_LOWEST, _CLASSES = -20.0, 80
_SMALL, _COUNT_WIDTH = 16, 0.08  # the same for counts: each up to the first number, above it on a log scale
_STEPS, _TOLERANCE = 300, 1e-5
_PRIOR_CELLS = 5.0
"""Weight of what the Gamma alone says, in cells; half of it for the Gamma, half for the others in its proportions."""
_ROWS = 200_000  # of classes x components at a time


@torch.no_grad()
def fit_residuals(module: VaDE, cells: Iterable) -> None:
    """Fit the weights of the components of each gene's mixture by EM.

    Maximum likelihood over all distributions on a grid, but for the grid (Kiefer & Wolfowitz 1956; Koenker & Mizera
    2014), held to the Gamma by a prior of some cells.

    Parameters
    ----------
    module
        The trained module, with all that its means and dispersions depend on.
    cells
        Batches of the cells to learn from, with nothing held out; :data:`MAX_CELLS` are enough.
    """
    training = module.training
    module.eval()
    gene, *columns = (torch.from_numpy(values) for values in _classes(module, cells))
    log_weight = torch.empty_like(module.residual.log_weight, device="cpu")
    prior = _of_gamma(module.theta.cpu() * module.gate.log_theta_ratio.cpu().exp())
    first = torch.searchsorted(gene, torch.arange(prior.shape[1] + 1)).tolist()
    start = 0
    while start < prior.shape[1]:  # some genes at a time: those of about as many classes
        stop = start + 1
        while stop < prior.shape[1] and first[stop + 1] - first[start] <= _ROWS // len(prior):
            stop += 1
        rows = slice(first[start], first[stop])
        genes = slice(start, stop)
        log_weight[:, genes] = _weights(gene[rows] - start, *(column[rows] for column in columns), prior[:, genes])
        start = stop
    module.residual.log_weight.copy_(log_weight)
    module.residual.fitted.fill_(True)
    module.train(training)


def _classes(module: VaDE, cells: Iterable) -> tuple[np.ndarray, ...]:
    """Gene, log mean, log theta, count and number of the entries of each class, sorted by gene."""
    n_genes = len(module.gene_seen)
    size = n_genes * _CLASSES
    # Sums of log mean, log theta, count and 1: of zeros, for each gene and mean; of counts, for those that there are.
    of_zeros, keys, of_counts = np.zeros((4, size)), np.zeros(0, np.int64), np.zeros((4, 0))
    for tensors, inferred in at_posterior_mean(module, cells):
        x, own = tensors[REGISTRY_KEYS.X_KEY], module.predict(tensors, inferred)
        log_mean = own["rate"].clamp_min(1e-8).log()
        place = ((log_mean - _LOWEST) / _WIDTH).long().clamp(0, _CLASSES - 1)
        place = (place + torch.arange(n_genes, device=x.device) * _CLASSES).cpu().numpy().ravel()
        entries = [log_mean, own["theta"].log().expand_as(x), x, torch.ones_like(x)]
        entries = [values.cpu().numpy().ravel() for values in entries]
        seen = np.flatnonzero(entries[2])
        # Small counts are classes of their own; large ones are taken together where no component tells them apart.
        count = entries[2][seen]
        large = _SMALL + np.ceil(np.log(np.maximum(count, _SMALL) / _SMALL) / _COUNT_WIDTH)
        key = place[seen] * 1024 + np.minimum(np.where(count <= _SMALL, count, large), 1023).astype(np.int64)
        for total, values in zip(of_zeros, entries, strict=True):
            total += np.bincount(place, values, size) - np.bincount(place[seen], values[seen], size)
        keys, inverse = np.unique(np.concatenate([keys, key]), return_inverse=True)
        both = np.concatenate([of_counts, np.stack([values[seen] for values in entries])], 1)
        of_counts = np.stack([np.bincount(inverse, values, len(keys)) for values in both])
    zeros = np.flatnonzero(of_zeros[3] > 0.5)
    place = np.concatenate([zeros, keys // 1024])
    order = np.argsort(place, kind="stable")
    sums = np.concatenate([of_zeros[:, zeros], of_counts], 1)[:, order]
    return place[order] // _CLASSES, *(sums[:3] / sums[3]).astype(np.float32), sums[3].astype(np.float32)


def _of_gamma(theta: Tensor) -> Tensor:
    """Weights of the components if the Gamma of shape theta were right, components x genes."""
    edges = ((LOG_RATIO[1:] + LOG_RATIO[:-1]) / 2).exp()
    below = torch.special.gammainc(theta.expand(len(edges), -1).double(), theta.double() * edges.double()[:, None])
    of_others = torch.cat([below[:1], below.diff(dim=0), 1 - below[-1:]]).clamp_min(0) + 1e-6
    others = 0.5 * of_others / of_others.sum(0)
    return torch.cat([torch.full_like(others[:1], 0.5), others]).float()


def _weights(gene: Tensor, log_mean: Tensor, log_theta: Tensor, count: Tensor, n: Tensor, prior: Tensor) -> Tensor:
    """Log weights of some genes' components from their classes of entries, components x genes."""
    likelihood = torch.softmax(component_log_prob(count, log_mean.exp(), log_theta.exp()), 0).T.contiguous()
    cells = torch.zeros(prior.shape[1]).index_add_(0, gene, n)[:, None] + _PRIOR_CELLS
    pseudo, weight = _PRIOR_CELLS * prior.T, prior.T.contiguous()
    for _ in range(_STEPS):
        joint = likelihood * weight.index_select(0, gene)
        joint *= (n / joint.sum(1).clamp_min(1e-30))[:, None]
        before, weight = weight, (torch.zeros_like(weight).index_add_(0, gene, joint) + pseudo) / cells
        if (weight - before).abs().max() < _TOLERANCE:
            break
    return weight.log().T
