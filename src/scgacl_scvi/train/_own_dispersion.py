"""Dispersion of each gene around its own mean, for genes that keep it."""

from collections.abc import Iterable

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scvi import REGISTRY_KEYS
from torch import Tensor

from scgacl_scvi.module import VaDE
from scgacl_scvi.module._likelihoods import entry_log_prob
from scgacl_scvi.module._nonzeros import Nonzeros

ENTRIES = 10_000_000
"""Cells x genes from which dispersions are learnt; of more data a random sample of cells is as good."""

_COARSE = np.linspace(-5.0, 9.0, 36)  # log theta; between its points the log-likelihood is smooth
_FINE = np.linspace(-5.0, 9.0, 281)
_SPREAD = 1.0  # of log theta over genes
_EM_STEPS = 50


@torch.no_grad()
def fit_own_dispersions(module: VaDE, batches: Iterable) -> None:
    """Fit the dispersion of the genes whose mean follows neither cluster nor generator.

    The module's dispersions are those around the generator's means. A gene that keeps its own mean varies around that
    by all that the generator might have explained: the markers of a rare type whose means held-out counts could not
    bear out, above all. Their counts have to weigh more in the posterior mean. Log dispersions are normal over these
    genes, around a mean that is learnt by EM (empirical Bayes); each gene gets its posterior mean.

    Parameters
    ----------
    module
        The trained module, its gate fitted. Where each batch has dispersions, their ratios stay.
    batches
        An iterator over cells, with nothing held out.
    """
    gate = module.gate
    genes = torch.nonzero(gate.keeps_own_mean).squeeze(-1)
    if not len(genes):
        return
    training = module.training
    module.eval()
    total = _log_likelihoods(module, batches, genes)
    log_theta = module.theta.log()
    own = torch.as_tensor(_log_theta(total, float(log_theta.mean()))).to(log_theta)
    gate.log_theta_ratio.zero_()
    gate.log_theta_ratio[genes] = own - log_theta[genes]
    module.train(training)


def _log_likelihoods(module: VaDE, batches: Iterable, genes: Tensor) -> np.ndarray:
    """Log-likelihood of each of the genes' counts at each dispersion of the coarse grid, grid x genes."""
    total = torch.zeros(len(_COARSE), len(genes), dtype=torch.float64, device=module.device)
    thetas = torch.as_tensor(np.exp(_COARSE), dtype=torch.float32, device=module.device)
    for tensors in batches:
        tensors = {key: value.to(module.device) for key, value in tensors.items()}
        inferred = module.encode(**module._get_inference_input(tensors))
        inferred["z"] = inferred["qz"].loc
        x, rate = tensors[REGISTRY_KEYS.X_KEY][:, genes], module.predict(tensors, inferred)["rate"][:, genes]
        of_batch = module.theta_of(tensors[REGISTRY_KEYS.BATCH_KEY])[..., genes] / module.theta[genes]
        nonzeros = Nonzeros(x)
        for of_theta, theta in zip(total, thetas, strict=True):
            of_theta += entry_log_prob(x, rate, theta * of_batch, nonzeros=nonzeros).sum(0)
    return total.cpu().numpy()


def _log_theta(log_likelihood: np.ndarray, start: float) -> np.ndarray:
    """Log of 1 over the posterior mean of each gene's 1 / theta, under a normal of log theta around what all have.

    The weight of a count in the posterior mean of the expression, mu / (mu + theta), is about linear in 1 / theta.
    ``start`` is where its centre begins, and counts as one more gene. Its spread is not learnt: it would be that of the
    many genes that nothing sets apart, and draw in the few that are to be found.
    """
    fine = CubicSpline(_COARSE, log_likelihood)(_FINE)
    centre = start
    for _ in range(_EM_STEPS):
        log_posterior = fine - ((_FINE - centre) ** 2 / 2 / _SPREAD**2)[:, None]
        posterior = np.exp(log_posterior - log_posterior.max(0))
        posterior /= posterior.sum(0)
        centre = (float((_FINE @ posterior).sum()) + start) / (posterior.shape[1] + 1)
    return -np.log(np.exp(-_FINE) @ posterior)
