"""Callbacks of a fit."""

from copy import deepcopy

import lightning.pytorch as pl

from scgacl_scvi._keys import HELDOUT


class RestoreBest(pl.Callback):
    """After training, put back the weights of the epoch with the best held-out metric.

    Only epochs with a fitted prior count: the autoencoder's may look better on held-out molecules, but it has no
    clusters and no posterior. ``best_epoch`` is None where nothing was validated.
    """

    def __init__(self, monitor: str = f"{HELDOUT}_validation"):
        self.monitor = monitor
        self.best_epoch: int | None = None
        self.best_value = float("inf")
        self._state: dict | None = None

    def on_validation_end(self, trainer: pl.Trainer, plan: pl.LightningModule) -> None:
        """Remember the weights if they are the best so far."""
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or value is None or not plan.module.prior.fitted:
            return
        if float(value) < self.best_value:
            self.best_value, self.best_epoch = float(value), trainer.current_epoch
            self._state = deepcopy(plan.module.state_dict())

    def on_train_end(self, trainer: pl.Trainer, plan: pl.LightningModule) -> None:
        """Restore the best weights."""
        if self._state is not None:
            plan.module.load_state_dict(self._state)
            self._state = None
