"""Saved models: what can be loaded, and what needs the data that a model was trained on."""

from typing import Any

import pandas as pd
from scvi.model.base import BaseModelClass

from ._checks import check_has_data
from ._fingerprint import data_fingerprint

NO_DATAMODULE = (
    "SCGACL does not take a datamodule. Each cell keeps a fifth of its entries from the first phases, and the prior, "
    "the gate of each gene and the dropout curve are fitted to the same cells again: this needs cells by number, and "
    "a datamodule only streams them. Data that do not fit into memory can be registered backed: "
    "`anndata.read_h5ad(path, backed='r')`."
)


class LoadingMixin:
    """Saving without what a version ties down, and loading."""

    @property
    def history_(self) -> dict[str, pd.DataFrame] | None:
        """History of training, as ``history``."""
        return self._history

    @history_.setter
    def history_(self, history: dict | None) -> None:
        self._history = history if history is None else {key: _frame(table) for key, table in history.items()}

    def _get_user_attributes(self) -> list[tuple[str, Any]]:
        """What scvi-tools saves of a model; the history as arrays, for pandas 2 cannot read tables of pandas 3."""
        attributes = dict(super()._get_user_attributes())
        if attributes.get("history_"):
            attributes["history_"] = {key: _plain(table) for key, table in attributes["history_"].items()}
        return list(attributes.items())

    @classmethod
    def load(cls, dir_path: str, adata=None, *args, datamodule=None, **kwargs) -> "LoadingMixin":
        """Load a saved model, on any device, of any version of scvi-tools from 1.4.2 on.

        Parameters
        ----------
        dir_path
            Folder that :meth:`save` wrote.
        adata
            The data it was trained on, or others with the same genes. None: what ``save(..., save_anndata=True)`` has
            written. False: no data; then getters need ``adata=``, and what needs the training data (further training,
            :meth:`gene_report`) raises.
        *args, **kwargs
            As ``scvi.model.SCVI.load``.
        datamodule
            Not supported.

        Returns
        -------
        The model, whose getters give the bits that they gave before it was saved (on the same device and versions).

        Raises
        ------
        NotImplementedError
            If a datamodule is given, or the model was made for one.
        ValueError
            If there is no model, or one of another class.
        """
        if datamodule is not None:
            raise NotImplementedError(NO_DATAMODULE)
        return super().load(dir_path, adata, *args, **kwargs)


def _plain(table: pd.DataFrame) -> dict[str, Any]:
    """A table as lists and an array."""
    index = {"index": table.index.tolist(), "name": table.index.name}
    return {"values": table.to_numpy(), "columns": [str(name) for name in table.columns], **index}


def _frame(table: pd.DataFrame | dict) -> pd.DataFrame:
    """The table that :func:`_plain` took apart; any other as it is."""
    if not isinstance(table, dict):
        return table
    index = pd.Index(table["index"], name=table["name"])
    return pd.DataFrame(table["values"], index=index, columns=table["columns"])


def refuse_datamodule(registry: dict | None) -> None:
    """A registry of scvi-tools' datamodules has no cells behind it."""
    if (registry or {}).get("setup_method_name") == "setup_datamodule":
        raise NotImplementedError(NO_DATAMODULE)


def check_training_data(model: BaseModelClass, what: str) -> None:
    """The model's data are those it was trained on, which ``what`` looks at again."""
    check_has_data(model, f"{what} needs the data it was trained on: load it with them")
    trained_on = getattr(model, "data_fingerprint_", None)
    if trained_on is not None and data_fingerprint(model.adata_manager) != trained_on:
        raise ValueError(
            f"{what} needs the data that the model was trained on, and it was loaded with others: "
            "`SCGACL.load(folder, adata=...)` with those."
        )
