"""Dispersion of each gene around its own mean, for genes that keep it."""

from collections.abc import Iterable

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scvi import REGISTRY_KEYS
from torch import Tensor

from scgacl_scvi.module import VaDE
from scgacl_scvi.module._at_mean import at_posterior_mean
from scgacl_scvi.module._likelihoods import nb_nonzero_excess, nb_zero_log_prob
from scgacl_scvi.module._nonzeros import Nonzeros

from ._loader import CellLoader

MAX_CELLS = 50_000
"""Cells from which dispersions are learnt at most; a random sample of more. Of a type of .1 % it still has fifty."""

_ZERO_ENTRIES = 10_000_000  # what zeros add is smooth in the mean, so every n-th cell will do for it
_COARSE = np.linspace(-5.0, 9.0, 36)  # log theta; between its points the log-likelihood is smooth
_FINE = np.linspace(-5.0, 9.0, 281)
_SPREAD = 1.0  # of log theta over genes
_EM_STEPS, _TOLERANCE = 1000, 1e-4


@torch.no_grad()
def fit_own_dispersions(module: VaDE, cells: CellLoader) -> None:
    """Fit the dispersion of the genes whose mean follows neither cluster nor generator.

    The module's dispersions are those around the generator's means. A gene that keeps its own mean varies around that
    by all that the generator might have explained: the markers of a rare type whose means held-out counts could not
    bear out, above all. Their counts have to weigh more in the posterior mean. Log dispersions are normal over these
    genes, around a mean that is learnt by EM (empirical Bayes); each gene gets 1 over its posterior mean of 1 / theta.

    Parameters
    ----------
    module
        The trained module, its gate fitted.
    cells
        The cells to learn from, with nothing held out; :data:`MAX_CELLS` are enough.
    """
    gate = module.gate
    genes = torch.nonzero(gate.keeps_own_mean & module.gene_seen).squeeze(-1)
    gate.log_theta_ratio.zero_()
    if not len(genes):
        return
    training = module.training
    module.eval()
    total = _log_likelihoods(module, cells, genes, -(-len(cells.indices) * len(genes) // _ZERO_ENTRIES))
    log_theta = module.theta.log()
    own = torch.as_tensor(_log_theta(total, float(log_theta.mean()))).to(log_theta)
    gate.log_theta_ratio[genes] = own - log_theta[genes]
    module.train(training)


@torch.no_grad()
def _log_likelihoods(module: VaDE, batches: Iterable, genes: Tensor, every: int) -> np.ndarray:
    """Log-likelihood, but for a constant, of each of the genes at each dispersion of the coarse grid, grid x genes.

    What zeros add is taken from one cell in ``every``. In double precision: rounding of ``lgamma`` at a large theta is
    the same for all counts of a size, and adds up.
    """
    total = torch.zeros(len(_COARSE), len(genes), dtype=torch.float64, device=module.device)
    thetas = torch.as_tensor(np.exp(_COARSE), device=module.device)
    for tensors, inferred in at_posterior_mean(module, batches):
        x = tensors[REGISTRY_KEYS.X_KEY][:, genes].double()
        rate = module.predict(tensors, inferred)["rate"][:, genes].double()
        nonzeros, share = Nonzeros(x), len(x) / len(x[::every])
        rate_seen = nonzeros.of(rate)
        for of_theta, theta in zip(total, thetas, strict=True):
            of_theta += share * nb_zero_log_prob(rate[::every], theta).sum(0)
            excess = nb_nonzero_excess(nonzeros.values, rate_seen, theta)
            of_theta += nonzeros.sum_by_column(excess)
    return total.cpu().numpy()


def _log_theta(log_likelihood: np.ndarray, start: float) -> np.ndarray:
    """Log of 1 over the posterior mean of each gene's 1 / theta, under a normal of log theta around what all have.

    The weight of a count in the posterior mean of the expression, mu / (mu + theta), is about linear in 1 / theta.
    ``start`` is where its centre begins, and counts as one more gene. Its spread is not learnt: it would be that of the
    many genes that nothing sets apart, and draw in the few that are to be found.
    """
    fine = CubicSpline(_COARSE, log_likelihood)(_FINE)
    likelihood = np.exp(fine - fine.max(0))
    centre = start
    for _ in range(_EM_STEPS):
        posterior = likelihood * np.exp(-((_FINE - centre) ** 2) / 2 / _SPREAD**2)[:, None]
        posterior /= posterior.sum(0)
        before, centre = centre, (float((_FINE @ posterior).sum()) + start) / (posterior.shape[1] + 1)
        if abs(centre - before) < _TOLERANCE:
            break
    return -np.log(np.exp(-_FINE) @ posterior)
