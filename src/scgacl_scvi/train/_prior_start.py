"""The prior's start: a mixture of the latent means of the training cells, once the autoencoder is trained."""

import logging
from collections.abc import Iterable

import torch
from torch import Tensor

from scgacl_scvi.module import VaDE

from ._mixture_fit import MixtureStart, fit_mixtures

logger = logging.getLogger(__name__)


@torch.no_grad()
def start_prior(
    module: VaDE, batches: Iterable[dict[str, Tensor]], *, n_clusters: int | None, reg_covar: float, seed: int
) -> MixtureStart:
    """Fit the mixture of each stratum, and the share of wrong labels.

    Parameters
    ----------
    module
        Its prior is set; it is in training mode after.
    batches
        Training cells, on the module's device.
    n_clusters, reg_covar, seed
        As :func:`~scgacl_scvi.train._mixture_fit.fit_mixture`.

    Returns
    -------
    What the mixture (of the first stratum) was fitted to.
    """
    module.eval()
    latents, labels, strata = [], [], []
    for batch in batches:
        latents.append(module.encode(**module._get_inference_input(batch))["qz"].loc)
        for found, codes in ((labels, module.labels(batch)), (strata, module.strata(batch))):
            if codes is not None:
                found.append(codes)
    module.train()
    if module.published:
        module.encoder.log_variance.load_state_dict(module.encoder.mean.state_dict())
        labels = []  # the published mixture is fitted without; they enter by the contrast and the dropout rule
    z = torch.cat(latents)
    labels, strata = (torch.cat(codes) if codes else None for codes in (labels, strata))
    starts = fit_mixtures(
        z.cpu().numpy(),
        None if strata is None else strata.cpu().numpy(),
        module.n_strata,
        n_clusters=n_clusters,
        labels=None if labels is None else labels.cpu().numpy(),
        n_labels=module.n_labels,
        reg_covar=reg_covar,
        seed=seed,
    )
    for stratum, start in enumerate(starts):
        module.prior.initialise(*map(torch.as_tensor, (start.means, start.variances, start.weights)), stratum)
    if labels is not None:
        module.prior.fit_slip(z, labels, strata)
    how = "lowest BIC" if starts[0].bic else "as given" if n_clusters else "one a label"
    sizes = " + ".join(str(len(start.means)) for start in starts)
    logger.info(f"Prior: mixture of {sizes} components ({how}{'' if strata is None else ', in each stratum'}).")
    return starts[0]
