"""Methods side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ._style import BLUE, GREY, axes_row, signed, tidy

# Metric -> (what it says on the axis, whether higher is better).
METRICS = {
    "pearson_dropouts": ("Pearson r on dropouts", True),
    "rmse_dropouts": ("RMSE on dropouts (lognorm)", False),
    "cosine_dropouts": ("cosine on dropouts", True),
    "pearson_all": ("Pearson r on all entries", True),
    "rmse_all": ("RMSE on all entries (lognorm)", False),
    "median_pearson_cells": ("median Pearson r per cell", True),
    "median_pearson_genes": ("median Pearson r per gene", True),
    "gain_nats": ("held-out gain (nats / molecule)", True),
    "mse_gain": ("held-out MSE gain (share)", True),
    "ari": ("adjusted Rand index", True),
    "nmi": ("normalised mutual information", True),
}
DEFAULT = ("pearson_dropouts", "rmse_dropouts", "median_pearson_cells", "median_pearson_genes", "gain_nats", "mse_gain")


def recovery_bars(
    table: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    *,
    highlight: str | Sequence[str] = (),
    ax: Any = None,
) -> np.ndarray:
    """Compare methods: one panel per metric, one bar per method, in the order of the table.

    Parameters
    ----------
    table
        One row per method, or per method and seed: names in a column ``method`` or in the index, one column per metric,
        as from :func:`scgacl_scvi.evaluate.recovery` or :func:`scgacl_scvi.evaluate.molecular_cv`. Repeated methods
        are drawn as their mean, each row as a dot.
    metrics
        Columns to draw; those of a usual choice that the table has if None.
    highlight
        Method or methods in colour; the others are grey. All are coloured if empty.
    ax
        As many Axes as metrics; a new figure if None.

    Returns
    -------
    Array of Axes, one per metric. Each bar carries its (mean) value.

    Raises
    ------
    ValueError
        If the table is empty or lacks a metric, or a highlighted method is not in it.
    """
    if len(table) == 0:
        raise ValueError("table: has no rows; pass one row per method")
    names = table.get("method", table.index)
    names = pd.Index(names.astype(str))
    methods = list(dict.fromkeys(names))
    if metrics is None:
        metrics = [name for name in DEFAULT if name in table]
    if not len(metrics):
        raise ValueError(f"metrics: none of {list(DEFAULT)} is in the table; name the columns to draw")
    missing = [name for name in metrics if name not in table]
    if missing:
        raise ValueError(f"metrics: {missing} not in the table; choose from {list(table.columns)}")
    highlight = [highlight] if isinstance(highlight, str) else list(highlight)
    unknown = sorted(set(highlight) - set(methods))
    if unknown:
        raise ValueError(f"highlight: {unknown} not among the methods; choose from {methods}")

    axes = axes_row(ax, len(metrics), width=2.7, height=0.9 + 0.34 * len(methods))
    colors = [BLUE if not highlight or method in highlight else GREY for method in methods]
    for one, metric in zip(axes, metrics, strict=True):
        rows = [table.loc[names == method, metric].to_numpy(float) for method in methods]
        _bars(one, rows, colors, metric)
        one.set_yticks(range(len(methods)), methods)
        one.invert_yaxis()
    for one in axes[1:]:
        one.tick_params(labelleft=False)
    return axes


def _bars(ax: Axes, rows: list[np.ndarray], colors: list[str], metric: str) -> None:
    values = [row[np.isfinite(row)] for row in rows]
    means = np.array([v.mean() if v.size else np.nan for v in values])
    ax.barh(range(len(means)), np.nan_to_num(means), height=0.62, color=colors)
    # The value stands in a column of its own at the right edge, where no bar or dot can hide it.
    for i, (mean, v) in enumerate(zip(means, values, strict=True)):
        text = signed(mean, 3) if np.isfinite(mean) else "no value"
        ax.annotate(text, (1.02, i), xycoords=("axes fraction", "data"), va="center", fontsize="small")
        if v.size > 1:
            ax.scatter(v, np.full(v.size, i), s=14, c="white", edgecolors="black", linewidths=0.7, zorder=3)
    ax.axvline(0, color="black", linewidth=0.8)
    label, higher = METRICS.get(metric, (metric, None))
    direction = "" if higher is None else "\nhigher is better" if higher else "\nlower is better"
    ax.set_xlabel(label + direction, fontsize="small")
    tidy(ax, grid="x")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
