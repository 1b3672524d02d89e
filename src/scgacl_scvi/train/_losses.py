"""The losses of an epoch, gathered as tensors; nothing is read back or logged before its end."""

import numpy as np
import torch
from scvi.module.base import LossOutput
from torch import Tensor

from scgacl_scvi._keys import HELDOUT

from ._phases import Phase

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


class EpochLogMixin:
    """Of a training plan: what is logged at the end of an epoch."""

    def _log_epoch(self, mode: str) -> None:
        means = self._losses.means(mode)
        if means is None:
            return
        if not np.isfinite(means["loss"]) and mode == "train":
            name = "pretrain" if self._phase is Phase.AUTOENCODER else self._phase
            raise FloatingPointError(
                f"The loss became {means['loss']} in epoch {self.current_epoch} ({self._phase} phase). Lower "
                f"`{name}_lr` (now {self.learning_rates[self._phase]:g}), and look for cells of extreme depth."
            )
        self._log_values({f"{mode}_loss" if name == "loss" else f"{name}_{mode}": v for name, v in means.items()})

    def _log_values(self, values: dict[str, float]) -> None:
        """Log an epoch's values; the loss and the held-out metric are shown in the progress bar."""
        shown = {"train_loss", f"{HELDOUT}_validation"}
        if self.use_sync_dist:
            for key, value in values.items():
                self.log(key, value, prog_bar=key in shown, sync_dist=True, on_epoch=True)
            return
        if self.trainer.sanity_checking:
            return
        # With a single process there is nothing to average, and Lightning's `log` takes longer than a step of training.
        tensors = {key: torch.tensor(value) for key, value in values.items()}
        self.trainer.callback_metrics.update(tensors)
        self.trainer.logged_metrics.update(tensors)
        self.trainer.progress_bar_metrics.update({key: values[key] for key in shown & values.keys()})
        for log in self.trainer.loggers:
            log.log_metrics({**values, "epoch": self.current_epoch}, step=self.global_step)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training losses."""
        self._log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's validation losses and the held-out metric."""
        self._log_epoch("validation")
        if self._heldout:
            loss, n = torch.stack(self._heldout).sum(0).tolist()
            self._heldout.clear()
            self._log_values({f"{HELDOUT}_validation": loss / max(n, 1.0)})
