"""Colours, axes and legends shared by the figures."""

import re
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

# Okabe & Ito 2008, without the yellow that vanishes on white: told apart with any colour vision.
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, BLACK = COLORS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#CC79A7",
    "#000000",
)
GREY = "#9AA3AD"
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<")


def axes_row(ax: Any, n: int, *, width: float, height: float) -> np.ndarray:
    """Return a row of ``n`` Axes: the given ones, or those of a new figure."""
    if ax is None:
        _, axes = plt.subplots(1, n, figsize=(width * n, height), squeeze=False, layout="constrained")
        return axes[0]
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) != n or not all(isinstance(one, Axes) for one in axes):
        raise ValueError(f"ax: this figure has {n} panel(s), got {len(axes)}; pass {n} matplotlib Axes or None")
    return axes


def one_axes(ax: Axes | None, *, width: float, height: float) -> Axes:
    """Return the given Axes, or those of a new figure."""
    return axes_row(ax, 1, width=width, height=height)[0]


def tidy(ax: Axes, *, grid: str | None = None) -> None:
    """Remove the frame's upper and right side; add a faint grid along an axis if asked."""
    ax.spines[["top", "right"]].set_visible(False)
    if grid:
        ax.grid(axis=grid, color="0.9", linewidth=0.8)
        ax.set_axisbelow(True)


def point_size(n: int) -> float:
    """Area of a marker (square points) that suits ``n`` points in a panel."""
    return float(np.clip(12000 / max(n, 1), 5, 22))


def scatter_labels(ax: Axes, x: np.ndarray, y: np.ndarray, labels: pd.Categorical) -> None:
    """Scatter points with a colour and, beyond seven labels, a marker for each label."""
    size = point_size(len(x))
    for code, name in enumerate(labels.categories):
        chosen = labels.codes == code
        color, marker = COLORS[code % len(COLORS)], MARKERS[code // len(COLORS) % len(MARKERS)]
        ax.scatter(
            x[chosen], y[chosen], s=size, c=color, marker=marker, alpha=0.7, linewidths=0, rasterized=True, label=name
        )
    missing = labels.codes < 0
    if missing.any():
        style = {"alpha": 0.7, "linewidths": 0, "rasterized": True, "zorder": 0}
        ax.scatter(x[missing], y[missing], s=size, c="0.8", label="no label", **style)


def categories(labels: Any) -> pd.Categorical:
    """Labels as a categorical without empty categories, in their own or in natural order; NaN stays NaN."""
    labels = pd.Series(np.asarray(labels) if not isinstance(labels, pd.Series | pd.Categorical) else labels)
    if not isinstance(labels.dtype, pd.CategoricalDtype):
        labels = labels.where(labels.isna(), labels.astype(str))
        labels = pd.Categorical(labels, categories=sorted(labels.dropna().unique(), key=_natural))
    return pd.Categorical(labels).remove_unused_categories()


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts "type 2" before "type 10"."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def signed(value: float, decimals: int) -> str:
    """Format a number with a real minus sign, and none at zero."""
    text = f"{value:z.{decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def side_legend(ax: Axes, title: str | None = None) -> None:
    """Legend to the right of the Axes, with markers large enough to tell colours by."""
    handles, names = ax.get_legend_handles_labels()
    n_columns = 1 + (len(names) - 1) // 18
    legend = ax.legend(
        handles,
        names,
        title=title,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0,
        frameon=False,
        ncols=n_columns,
        fontsize="small",
        alignment="left",
    )
    for handle in legend.legend_handles:
        handle.set_sizes([36])
        handle.set_alpha(1)
