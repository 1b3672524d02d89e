"""Counts of independent genes, to show what correlation an imputation invents."""

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from scgacl_scvi import _keys

from ._parameters import _count, _number
from ._seed import resolve_seed, stream

if TYPE_CHECKING:
    from anndata import AnnData

_BOUNDS = {
    "de_prob": (0, 1),
    "fold_change": (1, 1e3),
    "dispersion": (1e-3, 10),
    "library_scale": (0, 3),
}

_LOG10_MEANS = (-1.5, 1.5)
"""Means of the genes: from one count in thirty cells to thirty counts in each."""


def simulate_null(
    n_cells: int = 1000,
    n_genes: int = 300,
    *,
    de_prob: float = 0.5,
    fold_change: float = 10.0,
    dispersion: float = 0.2,
    library_scale: float = 0.4,
    seed: int | None = None,
) -> "AnnData":
    r"""Simulate negative-binomial counts of two cell types whose genes are independent of one another.

    Gene g has a mean :math:`\mu_g` whose logarithm is uniform, from .03 to 30 counts; cell n has a log-normal size
    :math:`s_n` and one of two types with equal chance. A differential gene has :math:`\mu_g f^{1/2}` in one type and
    :math:`\mu_g f^{-1/2}` in the other. Then

    .. math::

        \lambda_{ng} \sim \text{Gamma}(1 / d, \text{mean } s_n \mu_{ng}), \quad x_{ng} \sim \text{Poisson}(\lambda_{ng})

    with every :math:`\lambda_{ng}` drawn by itself. Beyond depth, only two differential genes are correlated:
    :func:`scgacl_scvi.evaluate.null_correlation` counts the pairs that an imputation adds.

    Which differential genes are high in which type is chosen so that both types have the same expected library.
    Otherwise dividing by the library would make *every* gene differ between the types, and correlate them before any
    imputation.

    Parameters
    ----------
    n_cells, n_genes
        Size of the data. All are kept, also those without a count.
    de_prob
        Expected share of differential genes.
    fold_change
        f, at least 1: ratio of a differential gene's means.
    dispersion
        d, the squared coefficient of variation of the expression inside a type.
    library_scale
        Standard deviation of :math:`\log s_n`.
    seed
        As for :func:`simulate_splat`.

    Returns
    -------
    AnnData
        cells x genes

        - ``X``: counts, integers in float32, CSR
        - ``obs``: ``cell_type`` ("A" or "B")
        - ``var``: ``differential``, whether the gene differs; ``fold_change``, its mean in B over that in A (f, 1 / f,
          or 1); ``gene_mean``, :math:`\mu_g`
        - ``uns["simulation"]``: every parameter and the seed

    Raises
    ------
    ValueError
        If an argument is outside its range.

    Examples
    --------
    >>> adata = datasets.simulate_null(seed=0)

    References
    ----------
    After Andrews & Hemberg 2018, doi:10.12688/f1000research.16613.
    """
    import pandas as pd
    from anndata import AnnData

    parameters = {
        "n_cells": _count("n_cells", n_cells),
        "n_genes": _count("n_genes", n_genes),
        "de_prob": de_prob,
        "fold_change": fold_change,
        "dispersion": dispersion,
        "library_scale": library_scale,
    }
    parameters |= {name: _number(name, parameters[name], *bounds) for name, bounds in _BOUNDS.items()}
    seed = resolve_seed(seed)

    genes = stream(seed, "null_genes")
    mean = 10 ** genes.uniform(*_LOG10_MEANS, n_genes)
    differential = genes.random(n_genes) < parameters["de_prob"]
    change = parameters["fold_change"] ** _balanced_signs(mean * differential, genes)
    cells = stream(seed, "null_cells")
    size = cells.lognormal(0, parameters["library_scale"], n_cells)
    is_b = cells.random(n_cells) < 0.5

    half = np.sqrt(change)
    expected = size[:, None] * mean * np.where(is_b[:, None], half, 1 / half)
    draws = stream(seed, "null_counts")
    shape = 1 / parameters["dispersion"]
    counts = draws.poisson(draws.gamma(shape, expected / shape)).astype(np.float32)

    return AnnData(
        sp.csr_matrix(counts),
        obs=pd.DataFrame({_keys.CELL_TYPE: pd.Categorical(np.where(is_b, "B", "A"))}, index=_names("Cell", n_cells)),
        var=pd.DataFrame(
            {_keys.DIFFERENTIAL: differential, _keys.FOLD_CHANGE: change, _keys.GENE_MEAN: mean},
            index=_names("Gene", n_genes),
        ),
        uns={_keys.SIMULATION: {"model": "null", **parameters, "seed": seed}},
    )


def _balanced_signs(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return -1 or 1 for each weight (0 for none), such that the signed weights sum to about 0."""
    signs = np.zeros(weights.size)
    total = rng.choice((-1.0, 1.0)) * np.finfo(float).tiny  # a coin for the first
    for gene in np.argsort(-weights, kind="stable"):  # the largest first: the last, small ones level it out
        if weights[gene] > 0:
            signs[gene] = -np.sign(total) if total else 1.0
            total += signs[gene] * weights[gene]
    return signs


def _names(word: str, n: int) -> list[str]:
    return [f"{word}{i + 1:0{max(4, len(str(n)))}d}" for i in range(n)]
