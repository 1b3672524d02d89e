"""The one place that writes to an AnnData: the layer of values, and how it was made."""

import importlib.metadata
from dataclasses import asdict

import numpy as np
from anndata import AnnData

from scgacl_scvi._keys import UNS

from ._values import Request


def store_layer(adata: AnnData, key: str, values: np.ndarray, request: Request, details: dict) -> None:
    """Put values into ``adata.layers[key]`` (no copy) and their making into ``adata.uns["scgacl"][key]``.

    Parameters
    ----------
    adata
        The user's data.
    key
        Name of the layer.
    values
        Cells x genes, on ``request.scale``.
    request
        Policy, scale, estimand and threshold.
    details
        Further entries: strings and numbers, so that h5ad and zarr take them.
    """
    versions = {name: importlib.metadata.version(name) for name in ("scgacl-scvi", "scvi-tools", "torch")}
    record = {**asdict(request), **details, "versions": versions}
    adata.layers[key] = values
    adata.uns[UNS] = {**adata.uns.get(UNS, {}), key: record}
