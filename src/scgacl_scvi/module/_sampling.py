"""What scvi-tools' own getters ask of a module: the marginal likelihood, and draws from the likelihood."""

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from torch import Tensor


class SamplingMixin:
    """Marginal likelihood and draws of a module with a mixture prior."""

    @torch.inference_mode()
    def marginal_ll(
        self,
        tensors: dict[str, Tensor],
        n_mc_samples: int,
        return_mean: bool = False,
        n_mc_samples_per_pass: int = 1,
    ) -> Tensor | float:
        """Marginal log-likelihood by importance sampling from the posterior; cells, or their mean.

        Samples are drawn one at a time: ``n_mc_samples_per_pass`` is scvi-tools' trade of memory for speed.
        """
        log_weights = []
        inputs = self._get_inference_input(tensors)
        for _ in range(n_mc_samples):
            inferred = self.inference(**inputs)
            generated = self.generative(**self._get_generative_input(tensors, inferred))
            x = tensors[REGISTRY_KEYS.X_KEY].to(inferred["z"].device)
            log_px = -self.reconstruction_loss(x, inferred["profile"], generated)
            log_pz = self.prior.log_prob(inferred["z"], self.strata(tensors))
            log_weights.append(log_px + log_pz - inferred["qz"].log_prob(inferred["z"]).sum(-1))
        log_ll = torch.logsumexp(torch.stack(log_weights), 0) - np.log(len(log_weights))
        return log_ll.mean().item() if return_mean else log_ll.cpu()

    @torch.inference_mode()
    def sample(self, tensors: dict[str, Tensor], n_samples: int = 1, **_) -> Tensor:
        """Draw from the likelihood at sampled z: cells x genes, or cells x genes x samples."""
        inferred, generated = self.forward(tensors, inference_kwargs={"n_samples": n_samples}, compute_loss=False)
        draws = generated["px"].sample()
        return draws.permute(1, 2, 0).cpu() if n_samples > 1 else draws.cpu()
