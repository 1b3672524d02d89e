"""Imputes dropout in single-cell RNA-seq: scGACL rebuilt on scvi-tools.

The names below are imported on first use (PEP 562), so that ``import scgacl_scvi`` stays light.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scvi import settings

    from . import datasets, dropout, evaluate, hub, pl, scales
    from .model import SCGACL

__all__ = ["SCGACL", "__version__", "datasets", "dropout", "evaluate", "hub", "pl", "scales", "settings"]

_SUBPACKAGES = ("datasets", "dropout", "evaluate", "hub", "pl", "scales")


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "SCGACL":
        from .model import SCGACL

        return SCGACL
    if name == "settings":
        from scvi import settings

        return settings
    if name == "__version__":
        from importlib.metadata import version

        return version("scgacl-scvi")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
