"""Figures: matplotlib only, each returns the Axes it drew on and never shows or saves anything.

The names below are imported on first use (PEP 562), so that ``import scgacl_scvi.pl`` stays light.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._dropout import dropout_curve
    from ._embedding import embedding_before_after
    from ._genes import gene_scatter, gene_scatter_before_after
    from ._recovery import recovery_bars
    from ._training import training

_HOMES = {
    "dropout_curve": "_dropout",
    "embedding_before_after": "_embedding",
    "gene_scatter": "_genes",
    "gene_scatter_before_after": "_genes",
    "recovery_bars": "_recovery",
    "training": "_training",
}

__all__ = [
    "dropout_curve",
    "embedding_before_after",
    "gene_scatter",
    "gene_scatter_before_after",
    "recovery_bars",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
