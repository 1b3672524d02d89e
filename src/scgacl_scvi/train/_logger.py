"""History of a fit, kept in dictionaries until it is asked for."""

import pandas as pd
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class EpochLogger(Logger):
    """The last value of each metric in each epoch.

    scvi-tools' own logger enlarges a data frame by each value, which on small data takes longer than the losses that
    it records.
    """

    def __init__(self):
        super().__init__()
        self._values: dict[str, dict[int, float]] = {}

    @property
    def name(self) -> str:
        """Name for Lightning."""
        return "scgacl"

    @property
    def version(self) -> int:
        """Version for Lightning."""
        return 0

    @rank_zero_only
    def log_hyperparams(self, *_, **__) -> None:
        """Nothing: the model keeps them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record metrics of the epoch given among them as ``epoch``."""
        epoch = int(metrics.get("epoch", step))
        for name, value in metrics.items():
            if name != "epoch":
                self._values.setdefault(name, {})[epoch] = float(value)

    @property
    def history(self) -> dict[str, pd.DataFrame]:
        """One table of one column for each metric, by epoch, as in scvi-tools."""
        return {
            name: pd.DataFrame({name: list(values.values())}, index=pd.Index(list(values), name="epoch"))
            for name, values in self._values.items()
        }
