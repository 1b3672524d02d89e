"""What every imputer is compared with: controls, and methods of others.

A method is a function ``counts -> rates``: counts of cells x genes in, expected counts at each cell's own depth out.
The names below are imported on first use (PEP 562): scVI and the peers bring much along.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._alra import alra
    from ._controls import all_zeros, gene_mean, gene_mean_impute, no_imputation, type_mean
    from ._external import PeerResult, PeerUnavailable, cellmapper, dca, magic, run_peer
    from ._knn_smoothing import knn_smoothing
    from ._scvi import scvi_defaults, scvi_nb, scvi_nb_both

_HOMES = {
    "PeerResult": "_external",
    "PeerUnavailable": "_external",
    "all_zeros": "_controls",
    "alra": "_alra",
    "cellmapper": "_external",
    "dca": "_external",
    "gene_mean": "_controls",
    "gene_mean_impute": "_controls",
    "knn_smoothing": "_knn_smoothing",
    "magic": "_external",
    "no_imputation": "_controls",
    "run_peer": "_external",
    "scvi_defaults": "_scvi",
    "scvi_nb": "_scvi",
    "scvi_nb_both": "_scvi",
    "type_mean": "_controls",
}

__all__ = [
    "PeerResult",
    "PeerUnavailable",
    "all_zeros",
    "alra",
    "cellmapper",
    "dca",
    "gene_mean",
    "gene_mean_impute",
    "knn_smoothing",
    "magic",
    "no_imputation",
    "run_peer",
    "scvi_defaults",
    "scvi_nb",
    "scvi_nb_both",
    "type_mean",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
