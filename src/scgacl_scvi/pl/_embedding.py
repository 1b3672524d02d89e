"""Two embeddings of the same cells."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ._style import axes_row, categories, scatter_labels, side_legend


def embedding_before_after(
    before: Any,
    after: Any,
    labels: Any,
    titles: tuple[str, str] = ("raw", "imputed"),
    *,
    name: str = "UMAP",
    ax: Any = None,
) -> np.ndarray:
    """Scatter two embeddings side by side with one legend.

    Parameters
    ----------
    before, after
        Coordinates, cells x 2 (further columns are ignored), such as ``adata.obsm["X_umap"]``.
    labels
        Label of each cell, length cells; NaN is drawn in grey.
    titles
        Titles of the two panels.
    name
        Name of the embedding, for the axes.
    ax
        Two Axes to draw on; a new figure if None.

    Returns
    -------
    Array of two Axes.

    Raises
    ------
    ValueError
        If coordinates are not cells x 2, or lengths differ.

    References
    ----------
    Distances between groups in a UMAP mean little: judge by :func:`scgacl_scvi.evaluate.clustering_agreement`.
    """
    before, after = _coordinates(before, "before"), _coordinates(after, "after")
    if len(before) != len(after):
        raise ValueError(f"after: {len(after)} cells, but before has {len(before)}; pass the same cells in order")
    labels = categories(labels)
    if len(labels) != len(before):
        raise ValueError(f"labels: {len(labels)} labels for {len(before)} cells; pass one label per cell")
    if len(titles) != 2:
        raise ValueError(f"titles: got {len(titles)}; pass two, such as ('raw', 'imputed')")
    axes = axes_row(ax, 2, width=4.0, height=3.3)
    for one, coordinates, title in zip(axes, (before, after), titles, strict=True):
        scatter_labels(one, *coordinates.T, labels)
        one.set_title(title, fontsize="medium")
        _bare(one, name)
    side_legend(axes[-1])
    return axes


def _bare(ax: Axes, name: str) -> None:
    """Label the axes but drop ticks: coordinates of an embedding have no unit."""
    ax.set(xticks=[], yticks=[], xlabel=f"{name} 1", ylabel=f"{name} 2")
    ax.set_box_aspect(1)
    ax.spines[["top", "right"]].set_visible(False)


def _coordinates(x: Any, argument: str) -> np.ndarray:
    x = np.asarray(x, dtype=float)
    if x.ndim != 2 or x.shape[1] < 2:
        raise ValueError(f"{argument}: expected cells x 2 coordinates, got shape {x.shape}; pass adata.obsm['X_umap']")
    if not np.isfinite(x[:, :2]).all():
        raise ValueError(f"{argument}: holds NaN or infinite coordinates; compute the embedding again without them")
    return x[:, :2]
