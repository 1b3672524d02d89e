"""Fit of the distribution of each gene's expression around its mean, by the counts that training saw."""

from collections.abc import Iterable

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from torch import Tensor

from scgacl_scvi.module import VaDE
from scgacl_scvi.module._at_mean import at_posterior_mean
from scgacl_scvi.module._nonzeros import Nonzeros
from scgacl_scvi.module._residual import LOG_RATIO, component_log_prob

MAX_CELLS = 20_000
"""Cells from which the distributions are learnt at most; a random sample of more."""

_WIDTH = 0.5  # of the classes of log means: entries of a class and a count are taken together
_LOWEST, _CLASSES = -20.0, 80
_STEPS = 300
_PRIOR_CELLS = 5.0
"""Weight of what the Gamma alone says, in cells; half of it for the Gamma, half for the others in its proportions."""
_ROWS = 200_000  # of classes x components at a time


@torch.no_grad()
def fit_residuals(module: VaDE, cells: Iterable) -> None:
    """Fit the weights of the components of each gene's mixture by EM.

    Maximum likelihood over all distributions on a grid, but for the grid (Kiefer & Wolfowitz 1956; Koenker & Mizera
    2014), held to the Gamma by a prior of one cell.

    Parameters
    ----------
    module
        The trained module, with all that its means and dispersions depend on.
    cells
        Batches of the cells to learn from, with nothing held out; :data:`MAX_CELLS` are enough.
    """
    training = module.training
    module.eval()
    gene, log_mean, count, n = (torch.from_numpy(values) for values in _classes(module, cells))
    first = torch.searchsorted(gene, torch.arange(len(module.theta) + 1)).tolist()
    log_weight = torch.empty_like(module.residual.log_weight, device="cpu")
    theta = module.theta.cpu() * module.gate.log_theta_ratio.cpu().exp()
    prior = _of_gamma(theta)
    start = 0
    while start < len(theta):  # some genes at a time: those of about as many classes
        stop = start + 1
        while stop < len(theta) and first[stop + 1] - first[start] <= _ROWS // len(prior):
            stop += 1
        rows = slice(first[start], first[stop])
        own = gene[rows] - start
        log_weight[:, start:stop] = _weights(
            own, log_mean[rows], count[rows], n[rows], theta[start:stop], prior[:, start:stop]
        )
        start = stop
    module.residual.log_weight.copy_(log_weight)
    module.residual.fitted.fill_(True)
    module.train(training)


def _classes(module: VaDE, cells: Iterable) -> tuple[np.ndarray, ...]:
    """Gene, log mean, count and number of the entries of each class, sorted by gene."""
    n_genes = len(module.gene_seen)
    size = n_genes * _CLASSES
    zeros, log_means = np.zeros(size), np.zeros(size)
    keys, values = [], []
    for tensors, inferred in at_posterior_mean(module, cells):
        x = tensors[REGISTRY_KEYS.X_KEY]
        log_mean = module.predict(tensors, inferred)["rate"].clamp_min(1e-8).log()
        place = ((log_mean - _LOWEST) / _WIDTH).long().clamp(0, _CLASSES - 1)
        place = (place + torch.arange(n_genes, device=x.device) * _CLASSES).cpu().numpy().ravel()
        log_mean, nonzeros = log_mean.cpu().numpy().ravel(), Nonzeros(x.cpu())
        seen = nonzeros.index.numpy()
        keys.append(place[seen].astype(np.int64) << 32 | nonzeros.values.numpy().astype(np.int64))
        values.append(log_mean[seen])
        all_of, seen_of = (np.bincount(place[at], minlength=size) for at in (slice(None), seen))
        zeros += all_of - seen_of
        log_means += np.bincount(place, log_mean, size) - np.bincount(place[seen], log_mean[seen], size)
    key, inverse, n = np.unique(np.concatenate(keys), return_inverse=True, return_counts=True)
    of_seen = np.bincount(inverse, np.concatenate(values), len(key)) / n
    empty = np.flatnonzero(zeros)
    place = np.concatenate([empty, key >> 32])
    order = np.argsort(place, kind="stable")
    columns = (
        place // _CLASSES,
        np.concatenate([log_means[empty] / zeros[empty], of_seen]).astype(np.float32),
        np.concatenate([np.zeros(len(empty)), key & 0xFFFFFFFF]).astype(np.float32),
        np.concatenate([zeros[empty], n]).astype(np.float32),
    )
    return tuple(column[order] for column in columns)


def _of_gamma(theta: Tensor) -> Tensor:
    """Weights of the components if the Gamma of shape theta were right, components x genes."""
    edges = torch.cat([(LOG_RATIO[1:] + LOG_RATIO[:-1]) / 2]).exp()
    below = torch.special.gammainc(theta.expand(len(edges), -1).double(), theta.double() * edges.double()[:, None])
    of_others = torch.cat([below[:1], below.diff(dim=0), 1 - below[-1:]]).clamp_min(0) + 1e-6
    others = 0.5 * of_others / of_others.sum(0)
    return torch.cat([torch.full_like(others[:1], 0.5), others]).float()


def _weights(gene: Tensor, log_mean: Tensor, count: Tensor, n: Tensor, theta: Tensor, prior: Tensor) -> Tensor:
    """Log weights of some genes' components from their classes of entries, components x genes."""
    likelihood = torch.softmax(component_log_prob(count, log_mean.exp(), theta[gene]), 0).T.contiguous()
    cells = torch.zeros(len(theta)).index_add_(0, gene, n)[:, None] + _PRIOR_CELLS
    pseudo, weight = _PRIOR_CELLS * prior.T, prior.T.contiguous()
    for _ in range(_STEPS):
        joint = likelihood * weight.index_select(0, gene)
        joint *= (n / joint.sum(1).clamp_min(1e-30))[:, None]
        weight = (torch.zeros_like(weight).index_add_(0, gene, joint) + pseudo) / cells
    return weight.log().T
