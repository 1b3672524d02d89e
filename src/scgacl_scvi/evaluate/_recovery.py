"""Recovery of a known truth."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scgacl_scvi._keys import UNS
from scgacl_scvi.scales import warn_other_scale

from ._matrix import as_matrix, check_values, dense_rows, row_blocks, same_shape
from ._moments import PairMoments
from ._scale import libraries, lognorm_rows


@dataclass(frozen=True)
class Recovery:
    """How well imputed values match the truth, all on the lognorm scale.

    A list of these makes a table: ``pandas.DataFrame([a, b], index=["a", "b"])``.
    """

    pearson_dropouts: float
    """Pearson correlation over the dropouts (observed 0, truth above 0)."""
    rmse_dropouts: float
    """Root mean squared error over the dropouts."""
    cosine_dropouts: float
    """Cosine similarity over the dropouts."""
    pearson_all: float
    """Pearson correlation over all entries."""
    rmse_all: float
    """Root mean squared error over all entries."""
    median_pearson_cells: float
    """Median over cells of the correlation across genes."""
    median_pearson_genes: float
    """Median over genes of the correlation across cells; 0 for a method that predicts each gene's mean."""
    n_dropouts: int
    """Number of dropouts."""


def recovery(
    imputed: Any, truth: Any, observed: Any, *, imputed_scale: Literal["lognorm", "counts"] = "lognorm"
) -> Recovery:
    """Compare imputed values with the truth, on dropouts and everywhere.

    The truth is brought to the lognorm scale with its own median library. A correlation with a constant prediction is
    0 by definition here, so a method that returns the gene's mean scores 0 per gene. Cells and genes whose *truth* is
    constant can be correlated by no method and are left out of the two medians. Blocks of cells are made dense one
    after the other, never the whole matrix.

    Parameters
    ----------
    imputed
        Imputed values, cells x genes, dense or sparse.
    truth
        True counts, cells x genes, dense or sparse.
    observed
        What was imputed, on any scale on which zero means zero, cells x genes, dense or sparse.
    imputed_scale
        ``"lognorm"``: ``imputed`` is taken as it is. ``"counts"``: it is first scaled to its own median library.

    Returns
    -------
    The scores. Those on dropouts are NaN if there are none; the medians are NaN if no cell or gene varies.

    Raises
    ------
    ValueError
        If shapes differ, a value is not finite, or a count is negative.

    Warns
    -----
    UserWarning
        If ``imputed`` is a frame whose ``attrs["scgacl"]`` names another scale than ``imputed_scale``.

    Examples
    --------
    >>> from scgacl_scvi.evaluate import lognorm, recovery
    >>> truth = [[1, 3, 0], [2, 2, 4]]
    >>> recovery(lognorm(truth), truth, [[1, 0, 0], [2, 2, 0]]).n_dropouts
    2

    References
    ----------
    The measures that scGACL reports (doi:10.1093/bib/bbag018).
    """
    if imputed_scale not in ("lognorm", "counts"):
        raise ValueError(f"imputed_scale: got {imputed_scale!r}; use 'lognorm' or 'counts'")
    # A frame of get_imputed_expression() says which scale it is on.
    warn_other_scale(getattr(imputed, "attrs", {}).get(UNS, {}).get("scale"), imputed_scale, "imputed")
    imputed, truth, observed = as_matrix(imputed, "imputed"), as_matrix(truth, "truth"), as_matrix(observed, "observed")
    same_shape(truth=truth, imputed=imputed, observed=observed)
    check_values(imputed, "imputed", nonnegative=False)
    check_values(observed, "observed", nonnegative=False)
    truth_scaling = libraries(truth, "truth")
    imputed_scaling = libraries(imputed, "imputed") if imputed_scale == "counts" else None

    dropouts, everything, genes = PairMoments(), PairMoments(), PairMoments()
    cell_pearson = []
    for rows in row_blocks(truth.shape):
        v = lognorm_rows(truth, *truth_scaling, rows)
        u = dense_rows(imputed, rows) if imputed_scaling is None else lognorm_rows(imputed, *imputed_scaling, rows)
        dropped = (dense_rows(observed, rows) == 0) & (v > 0)
        dropouts.add(u[dropped], v[dropped])
        everything.add(u.ravel(), v.ravel())
        genes.add(u, v)
        cells = PairMoments()
        cells.add(u.T, v.T)
        cell_pearson.append(cells.pearson[cells.varies_y])
    return Recovery(
        pearson_dropouts=float(dropouts.pearson),
        rmse_dropouts=float(dropouts.rmse),
        cosine_dropouts=float(dropouts.cosine),
        pearson_all=float(everything.pearson),
        rmse_all=float(everything.rmse),
        median_pearson_cells=_median(np.concatenate(cell_pearson)),
        median_pearson_genes=_median(genes.pearson[genes.varies_y]),
        n_dropouts=dropouts.n,
    )


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else float("nan")
