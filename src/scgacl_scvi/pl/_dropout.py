"""Zeros against expression."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy import sparse

from scgacl_scvi._keys import LAYER

from ._style import BLACK, BLUE, ORANGE, one_axes, point_size, tidy
from ._values import matrix


def dropout_curve(adata: Any, layer: str = LAYER, *, raw_layer: str | None = None, ax: Axes | None = None) -> Axes:
    """Share of zeros of each gene against its mean raw count, before and after imputation.

    Each gene has one place on the x axis, so imputation moves it straight down. The line is the control: the zeros that
    sampling alone would leave if each cell had the same profile (Poisson at the cells' library sizes). Genes above the
    line before imputation have more zeros than that, from dropout or from differences between cells.

    Parameters
    ----------
    adata
        Annotated data, cells x genes.
    layer
        Layer of imputed values, any scale on which zero means zero.
    raw_layer
        Layer of the raw counts; ``X`` if None.
    ax
        Axes to draw on; a new figure if None.

    Returns
    -------
    The Axes. Genes without a count are not shown.

    Raises
    ------
    ValueError
        If a layer is missing or no gene has a count.

    References
    ----------
    Andrews & Hemberg 2019 (M3Drop) on zeros against mean expression.
    """
    raw, imputed = matrix(adata, raw_layer, "raw_layer"), matrix(adata, layer)
    mean = np.asarray(raw.sum(axis=0), dtype=float).ravel() / raw.shape[0]
    shown = mean > 0
    if not shown.any():
        raise ValueError(f"{'adata' if raw_layer is None else 'raw_layer'}: no gene has a count; pass raw counts")
    ax = one_axes(ax, width=5.2, height=4.6)
    size = point_size(int(shown.sum()))
    for values, color, label in ((raw, ORANGE, "before"), (imputed, BLUE, f"after ({layer})")):
        zeros = _share_of_zeros(values)[shown]
        label = f"{label}: {zeros.mean():.0%} zeros"
        ax.scatter(mean[shown], zeros, s=size, c=color, alpha=0.6, linewidths=0, rasterized=True, label=label)
    grid = np.geomspace(mean[shown].min(), mean.max(), 100)
    ax.plot(grid, _poisson_zeros(raw, grid), color=BLACK, linewidth=1.2, label="Poisson sampling alone")
    ax.set_xscale("log")
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("mean raw count per cell")
    ax.set_ylabel("share of cells with a zero")
    tidy(ax, grid="y")
    legend = ax.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1.0), alignment="left")
    for handle in legend.legend_handles[:2]:
        handle.set_sizes([30])
        handle.set_alpha(1)
    return ax


def _share_of_zeros(x: Any) -> np.ndarray:
    if sparse.issparse(x):
        return 1 - np.asarray((x != 0).sum(axis=0)).ravel() / x.shape[0]
    return 1 - np.count_nonzero(np.asarray(x), axis=0) / x.shape[0]


def _poisson_zeros(raw: Any, means: np.ndarray) -> np.ndarray:
    """Mean over cells of ``exp(-mean * library / mean library)`` for each of the means."""
    library = np.asarray(raw.sum(axis=1), dtype=float).ravel()
    depth, weight = np.unique(library / library.mean(), return_counts=True)
    return np.exp(-np.outer(means, depth)) @ (weight / weight.sum())
