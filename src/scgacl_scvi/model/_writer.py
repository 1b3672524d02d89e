"""The one place that writes to an AnnData: a layer of values, and how it was made."""

import importlib.metadata
from typing import Any

import numpy as np
from anndata import AnnData
from scipy import sparse

from scgacl_scvi._keys import UNS


def store_layer(adata: AnnData, key: str, values: np.ndarray | sparse.csr_matrix, record: dict[str, Any]) -> None:
    """Put values into ``adata.layers[key]`` (no copy) and their making into ``adata.uns["scgacl"][key]``.

    Parameters
    ----------
    adata
        The user's data.
    key
        Name of the layer.
    values
        Cells x genes.
    record
        ``quantity``, ``unit`` and what else made the values: strings and numbers, so that h5ad and zarr take them.
    """
    versions = {name: importlib.metadata.version(name) for name in ("scgacl-scvi", "scvi-tools", "torch")}
    adata.layers[key] = values
    adata.uns[UNS] = {**adata.uns.get(UNS, {}), key: {**record, "versions": versions}}
