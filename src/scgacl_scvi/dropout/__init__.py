"""The published dropout rule: which zeros are dropouts, by a Gamma-Normal mixture per label and gene.

Knows matrices and label codes, never AnnData. Needs numpy and scipy only.
"""

from ._fit import FitStatus, GammaNormalFit
from ._gamma_normal import fit_gamma_normal

__all__ = ["FitStatus", "GammaNormalFit", "fit_gamma_normal"]
