"""The losses of an epoch, gathered as tensors; nothing is read back or logged before its end."""

import torch
from scvi.module.base import LossOutput
from torch import Tensor

LOSSES = (
    "loss",
    "reconstruction_loss",
    "kl_local",
    "adversarial",
    "discriminator",
    "cell_contrastive",
    "type_contrastive",
)
"""Losses in the history, as ``<name>_train`` and ``<name>_validation``; NaN in a phase that has no such loss.

Those of the discriminator are means over the batches that it saw.
"""


class EpochLosses:
    """Sums of losses over the cells of an epoch, for training and validation apart."""

    def __init__(self):
        self._batches: dict[str, list[Tensor]] = {}

    def add(self, mode: str, elbo: LossOutput, *others: Tensor) -> None:
        """Add a batch: its evidence bound, and the further ones of :data:`LOSSES` in that phase (means over cells)."""
        n = elbo.n_obs_minibatch
        losses = [elbo.loss * n, elbo.reconstruction_loss_sum, elbo.kl_local_sum, *(term * n for term in others)]
        absent = [torch.zeros_like(losses[0])] * (len(LOSSES) - len(losses))
        cells = [torch.full_like(losses[0], n)] * len(losses)
        self._batches.setdefault(mode, []).append(torch.stack([*losses, *absent, *cells, *absent]).detach())

    def means(self, mode: str) -> dict[str, float] | None:
        """Mean of each loss over the cells since the last call, and ``elbo``; None if there were none."""
        batches = self._batches.pop(mode, [])
        if not batches:
            return None
        total, cells = torch.stack(batches).sum(0).chunk(2)
        means = dict(zip(LOSSES, (total / cells).tolist(), strict=True))  # 0 / 0 is NaN
        return {**means, "elbo": means["reconstruction_loss"] + means["kl_local"]}
