"""The terms of the evidence bound: likelihood of the counts, divergence from the prior, priors on parameters."""

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import LossOutput
from torch import Tensor
from torch.distributions import Normal

from ._likelihoods import (
    masked_normal_log_likelihood,
    masked_squared_error,
    nb_log_likelihood,
    zinb_log_likelihood,
)
from ._nonzeros import Nonzeros


class EvidenceMixin:
    """Of a module: what training maximises, but for the losses of the discriminator."""

    def reconstruction_loss(
        self,
        x: Tensor,
        profile: Tensor,
        generated: dict[str, Tensor],
        visible: Tensor | None = None,
        nonzeros: Nonzeros | None = None,
    ) -> Tensor:
        """Negative log-likelihood of each cell's visible entries (or the published squared error)."""
        rate = generated["rate"]
        if self.gene_likelihood == "nb":
            return -nb_log_likelihood(x, rate, generated["theta"], visible, nonzeros)
        if self.gene_likelihood == "zinb":
            return -zinb_log_likelihood(x, rate, generated["theta"], generated["zi_logits"], visible, nonzeros)
        if self.published:
            return masked_squared_error(profile, generated["scale"])
        return -masked_normal_log_likelihood(profile, generated["scale"], self.log_theta.exp())

    @torch.no_grad()
    def add_prior_gradients(self, loadings: float, dispersions: float) -> None:
        """Add the gradients of two sums of squares: the generator's loadings, and log dispersions around their mean.

        With batches those of a gene around their mean, and these means around that of all genes. To gradients that
        there are; each sum has its factor. In place, since a graph for it takes three times as long.
        """
        outputs = [self.decoder.output] if self.decoder.zi is None else [self.decoder.output, self.decoder.zi]
        terms = [(layer.weight, layer.weight, loadings) for layer in outputs]
        terms.append((self.log_theta, self._dispersion_distance(), dispersions))
        for parameter, distance, factor in terms:
            if factor and parameter.grad is not None:
                parameter.grad.add_(distance, alpha=2 * factor)

    def _dispersion_distance(self) -> Tensor:
        """Half the gradient of the second sum by each log dispersion."""
        if self.log_theta.ndim == 1:
            return self.log_theta - self.log_theta.mean()
        frozen = self.n_frozen_batches
        of_gene = self.log_theta[: frozen or len(self.log_theta)].mean(0)
        distance = self.log_theta - of_gene
        if frozen:  # new batches are drawn to what the reference has
            distance[:frozen] = 0.0
            return distance
        return distance + (of_gene - of_gene.mean()) / len(self.log_theta)

    def kl(self, inferred: dict, labels: Tensor | None, strata: Tensor | None = None) -> Tensor:
        """KL of each cell's posterior to the prior: a standard normal until the mixture is fitted."""
        qz = inferred["qz"]
        if not self.prior.fitted:
            return self.kl_standard(qz)
        return self.prior.kl_sampled(qz, inferred["z"]) if self.published else self.prior.kl(qz, labels, strata)

    @staticmethod
    def kl_standard(qz: Normal) -> Tensor:
        """KL of each cell's posterior to N(0, I)."""
        return 0.5 * (qz.loc.square() + qz.scale.square() - 1 - 2 * qz.scale.log()).sum(-1)

    def loss(
        self, tensors: dict[str, Tensor], inference_outputs: dict, generative_outputs: dict, kl_weight: float = 1.0
    ) -> LossOutput:
        """Negative ELBO; adversarial and contrastive terms belong to the training plan."""
        reconstruction = self.reconstruction_loss(
            tensors[REGISTRY_KEYS.X_KEY],
            inference_outputs["profile"],
            generative_outputs,
            inference_outputs["visible"],
            inference_outputs["nonzeros"],
        )
        kl = self.kl(inference_outputs, self.labels(tensors), self.strata(tensors))
        return LossOutput((reconstruction + kl_weight * kl).mean(), reconstruction_loss=reconstruction, kl_local=kl)
