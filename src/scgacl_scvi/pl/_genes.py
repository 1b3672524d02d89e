"""Two genes against each other, before and after imputation."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from scgacl_scvi._keys import LAYER

from ._style import BLUE, axes_row, categories, one_axes, point_size, scatter_labels, side_legend, signed, tidy
from ._values import Scale, column, lognorm_genes, matrix, warn_unless_lognorm


def gene_scatter(
    adata: Any,
    gene_x: str,
    gene_y: str,
    *,
    layer: str | None = None,
    color: str | None = None,
    scale: Scale = "auto",
    ax: Axes | None = None,
) -> Axes:
    """Scatter one gene against another, one point per cell, on the lognorm scale.

    The title gives the Pearson correlation and the share of cells in which at least one of the two is zero.

    Parameters
    ----------
    adata
        Annotated data, cells x genes.
    gene_x, gene_y
        Genes on the axes, from ``adata.var_names``.
    layer
        Layer to show; ``X`` if None.
    color
        Column of ``adata.obs``: labels get a legend, numbers a colour bar.
    scale
        ``"counts"``: log-normalise first. ``"lognorm"``: show as stored. ``"auto"``: whole numbers are counts.
    ax
        Axes to draw on; a new figure if None.

    Returns
    -------
    The Axes.

    Raises
    ------
    ValueError
        If a gene, layer or column is missing.

    Warns
    -----
    UserWarning
        If ``adata.uns["scgacl"]`` says that the layer is on another scale and ``scale`` is ``"auto"``.
    """
    ax = one_axes(ax, width=4.6, height=4.0)
    if scale == "auto":
        warn_unless_lognorm(adata, layer)
    values = lognorm_genes(matrix(adata, layer), _columns(adata, gene_x, gene_y), scale)
    painted = _scatter(ax, values, _color(adata, color))
    _decorate(ax, values, gene_x, gene_y, "X" if layer is None else layer)
    _explain_color(ax, painted, color)
    return ax


def gene_scatter_before_after(
    adata: Any,
    gene_x: str,
    gene_y: str,
    layer: str = LAYER,
    truth_layer: str | None = None,
    color: str | None = None,
    *,
    raw_layer: str | None = None,
    ax: Any = None,
) -> np.ndarray:
    """Scatter two genes in raw data, after imputation and, if known, in the truth; same axes in all panels.

    Parameters
    ----------
    adata
        Annotated data, cells x genes.
    gene_x, gene_y
        Genes on the axes, from ``adata.var_names``.
    layer
        Layer of imputed values: lognorm, or counts if all are whole.
    truth_layer
        Layer of true counts, if there is one; it is log-normalised.
    color
        Column of ``adata.obs``: labels get a legend, numbers a colour bar.
    raw_layer
        Layer of the raw counts; ``X`` if None. Values that are not whole are taken for lognorm.
    ax
        Two Axes (three with a truth) to draw on; a new figure if None.

    Returns
    -------
    Array of two Axes, or three with a truth: raw | imputed | truth.

    Raises
    ------
    ValueError
        If a gene, layer or column is missing, or ``ax`` has another number of Axes.

    Warns
    -----
    UserWarning
        If ``adata.uns["scgacl"]`` says that a layer is on another scale than lognorm.
    """
    genes = _columns(adata, gene_x, gene_y)
    panels = {
        "raw": lognorm_genes(matrix(adata, raw_layer, "raw_layer"), genes),
        "imputed": lognorm_genes(matrix(adata, layer), genes),
    }
    if truth_layer is not None:
        panels["truth"] = lognorm_genes(matrix(adata, truth_layer, "truth_layer"), genes, "counts")
    warn_unless_lognorm(adata, layer)
    warn_unless_lognorm(adata, raw_layer, "raw_layer")
    axes = axes_row(ax, len(panels), width=3.5, height=3.7)
    colors = _color(adata, color)
    # Room below 0, so that the many cells at zero do not hide under the axes.
    low = [min(0.0, *(v[:, j].min() for v in panels.values())) for j in (0, 1)]
    high = [max(1e-3, *(v[:, j].max() for v in panels.values())) for j in (0, 1)]
    for one, (title, values) in zip(axes, panels.items(), strict=True):
        painted = _scatter(one, values, colors)
        _decorate(one, values, gene_x, gene_y, title)
        one.set_xlim(low[0] - 0.04 * high[0], 1.04 * high[0])
        one.set_ylim(low[1] - 0.04 * high[1], 1.04 * high[1])
    for one in axes[1:]:
        one.set_ylabel("")
    _explain_color(axes[-1], painted, color)
    return axes


def _columns(adata: Any, gene_x: str, gene_y: str) -> list[int]:
    return [column(adata, gene_x, "gene_x"), column(adata, gene_y, "gene_y")]


def _color(adata: Any, color: str | None) -> Any:
    """None, numbers or labels of the cells."""
    if color is None:
        return None
    if color not in adata.obs:
        raise ValueError(f"color: {color!r} is not in adata.obs; choose from {list(adata.obs)}")
    values = adata.obs[color]
    if pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype):
        return values.to_numpy(float)
    return categories(values)


def _scatter(ax: Axes, values: np.ndarray, colors: Any) -> Any:
    x, y = values.T
    if isinstance(colors, pd.Categorical):
        return scatter_labels(ax, x, y, colors)
    style = {"s": point_size(len(x)), "alpha": 0.6, "linewidths": 0, "rasterized": True}
    if colors is None:
        ax.scatter(x, y, color=BLUE, **style)
        return None
    return ax.scatter(x, y, c=colors, cmap="viridis", **style)


def _explain_color(ax: Axes, painted: Any, color: str | None) -> None:
    if painted is not None:
        bar = ax.figure.colorbar(painted, ax=ax, label=color)
        bar.solids.set_alpha(1)
    elif color is not None:
        side_legend(ax, color)


def _decorate(ax: Axes, values: np.ndarray, gene_x: str, gene_y: str, title: str) -> None:
    x, y = values.T
    spread = x.std() * y.std()
    correlation = f"r = {signed(((x - x.mean()) * (y - y.mean())).mean() / spread, 2)}" if spread > 0 else "r undefined"
    zeros = ((x == 0) | (y == 0)).mean()
    ax.set_title(f"{title}\n{correlation}, {zeros:.0%} of cells with a zero", fontsize="medium")
    ax.set_xlabel(f"{gene_x} (lognorm)")
    ax.set_ylabel(f"{gene_y} (lognorm)")
    tidy(ax)
