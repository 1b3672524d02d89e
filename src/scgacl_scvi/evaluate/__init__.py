"""Is the imputation any good? Small pure functions on arrays, one idea per file.

Everything here takes dense arrays, data frames or SciPy sparse matrices of cells x genes. The names below are imported
on first use (PEP 562), so that ``import scgacl_scvi.evaluate`` stays light.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import baselines
    from ._accounting import Usage, measured
    from ._calibration import coverage, randomised_pit, reliability
    from ._clustering import ClusteringAgreement, clustering_agreement
    from ._criticism import for_criticism
    from ._difference import Difference, difference_kept
    from ._heldout import cp10k_mse, poisson_gain, poisson_loss, poisson_loss_as_coded
    from ._leak import leak_z
    from ._molecular_cv import molecular_cv
    from ._null_correlation import NullCorrelation, null_correlation
    from ._recovery import Recovery, recovery
    from ._report import Section, write_page
    from ._scale import lognorm
    from ._smoothing import smoothing
    from ._variance import within_type_variance_ratio

_HOMES = {
    "ClusteringAgreement": "_clustering",
    "Difference": "_difference",
    "NullCorrelation": "_null_correlation",
    "Recovery": "_recovery",
    "Section": "_report",
    "Usage": "_accounting",
    "clustering_agreement": "_clustering",
    "coverage": "_calibration",
    "cp10k_mse": "_heldout",
    "for_criticism": "_criticism",
    "leak_z": "_leak",
    "difference_kept": "_difference",
    "lognorm": "_scale",
    "measured": "_accounting",
    "molecular_cv": "_molecular_cv",
    "null_correlation": "_null_correlation",
    "poisson_gain": "_heldout",
    "poisson_loss": "_heldout",
    "poisson_loss_as_coded": "_heldout",
    "randomised_pit": "_calibration",
    "recovery": "_recovery",
    "reliability": "_calibration",
    "smoothing": "_smoothing",
    "within_type_variance_ratio": "_variance",
    "write_page": "_report",
}

__all__ = [
    "ClusteringAgreement",
    "Difference",
    "NullCorrelation",
    "Recovery",
    "Section",
    "Usage",
    "baselines",
    "clustering_agreement",
    "coverage",
    "cp10k_mse",
    "difference_kept",
    "for_criticism",
    "leak_z",
    "lognorm",
    "measured",
    "molecular_cv",
    "null_correlation",
    "poisson_gain",
    "poisson_loss",
    "poisson_loss_as_coded",
    "randomised_pit",
    "recovery",
    "reliability",
    "smoothing",
    "within_type_variance_ratio",
    "write_page",
]


def __getattr__(name: str) -> Any:
    if name == "baselines":
        return importlib.import_module(f"{__name__}.baselines")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
