"""Callbacks of a fit."""

import lightning.pytorch as pl
import torch

from scgacl_scvi._keys import HELDOUT


class RestoreBest(pl.Callback):
    """Put back the weights of the epoch with the best held-out metric: before the joint phase, and after training.

    Only epochs with a fitted prior and from ``first_epoch`` on count: the autoencoder's may look better on held-out
    molecules, but it has no clusters and no posterior. ``best_epoch`` is None where nothing was validated.

    Parameters
    ----------
    monitor
        Metric of the validation cells, lower is better.
    first_epoch
        First epoch that may be the best one.
    """

    def __init__(self, monitor: str = f"{HELDOUT}_validation", first_epoch: int = 0):
        self.monitor = monitor
        self.first_epoch = first_epoch
        self.best_epoch: int | None = None
        self.best_value = float("inf")
        self._state: dict | None = None

    def on_validation_end(self, trainer: pl.Trainer, plan: pl.LightningModule) -> None:
        """Remember the weights if they are the best so far."""
        value = trainer.callback_metrics.get(self.monitor)
        early = trainer.current_epoch < self.first_epoch or not plan.module.prior.fitted
        if trainer.sanity_checking or value is None or early:
            return
        if float(value) < self.best_value:
            self.best_value, self.best_epoch = float(value), trainer.current_epoch
            state = plan.module.state_dict()
            if self._state is None:
                self._state = {key: value.clone() for key, value in state.items()}
            else:
                for key, value in state.items():
                    self._state[key].copy_(value)

    def restore(self, module: torch.nn.Module) -> None:
        """Put the best weights so far back."""
        if self._state is not None:
            module.load_state_dict(self._state)

    def on_train_end(self, trainer: pl.Trainer, plan: pl.LightningModule) -> None:
        """Restore the best weights of all."""
        self.restore(plan.module)
        self._state = None
