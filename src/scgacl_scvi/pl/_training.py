"""Curves of a training run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from scgacl_scvi._keys import HELDOUT

from ._style import BLUE, GREEN, ORANGE, PURPLE, axes_row, tidy

SPLITS = {"_train": "-", "_validation": "--"}

# Panels in reading order: title, unit, metrics.
PANELS = (
    ("held-out molecules", "negative log-likelihood\n(nats / molecule)", (HELDOUT,)),
    ("reconstruction", "reconstruction loss per cell", ("reconstruction_loss",)),
    ("evidence bound", "negative ELBO (nats / cell)", ("elbo",)),
    ("latent space", "KL divergence (nats / cell)", ("kl_local",)),
    ("adversarial", "cross-entropy (nats)", ("adversarial", "discriminator")),
    ("contrastive", "contrastive loss (nats)", ("cell_contrastive", "type_contrastive")),
)
LABELS = {
    "adversarial": "generator",
    "discriminator": "discriminator",
    "cell_contrastive": "cell",
    "type_contrastive": "type",
}
COLOR = {
    "adversarial": BLUE,
    "discriminator": ORANGE,
    "cell_contrastive": GREEN,
    "type_contrastive": PURPLE,
}
N_COLUMNS = 3


def training(
    history: Mapping[str, pd.DataFrame],
    names: Sequence[str] | None = None,
    *,
    phases: Mapping[str, tuple[float, float]] | None = None,
    ax: Any = None,
) -> np.ndarray:
    """Draw what was logged while training, one panel per kind of loss.

    Solid lines are training cells, dashed lines validation cells. A curve begins where its phase does: epochs that hold
    NaN are not drawn.

    Parameters
    ----------
    history
        ``model.history``: ``"<name>_train"`` or ``"<name>_validation"`` -> data frame with epochs as index and one
        column. Other keys are not drawn.
    names
        Names to draw, without ``_train`` or ``_validation``; all that hold a number if None.
    phases
        Name -> (first epoch, end) of each phase of the training; drawn as bands with lines between them.
    ax
        As many Axes as there are panels; a new figure if None.

    Returns
    -------
    Array of Axes, one per panel.

    Raises
    ------
    ValueError
        If the history holds none of the names, or ``ax`` has another number of Axes.
    """
    curves = _curves(history)
    if names is None:
        names = list(dict.fromkeys(name for name, _ in curves))
    known = {name for name, _ in curves}
    missing = [name for name in names if name not in known]
    if missing or not len(names):
        what = f"{missing} not logged" if missing else "nothing was logged under <name>_train or <name>_validation"
        raise ValueError(f"{'names' if missing else 'history'}: {what}; the history holds {sorted(history)}")
    panels = _panels(names)
    axes = _grid(ax, len(panels))
    for one, (title, unit, members) in zip(axes, panels, strict=True):
        splits = _draw(one, curves, members)
        # What all curves of a panel share stands in its title, not in every entry of the legend.
        one.set_title(f"{title} ({splits.pop()})" if len(splits) == 1 else title, fontsize="medium", loc="left")
        one.set_xlabel("epoch")
        one.set_ylabel(unit)
        tidy(one, grid="y")
        _mark_phases(one, phases or {})
        if len(one.get_legend_handles_labels()[1]) > 1:
            one.legend(frameon=False, fontsize="small", loc="best", bbox_to_anchor=(0, 0, 1, 0.9 if phases else 1))
    return axes


def _curves(history: Mapping[str, pd.DataFrame]) -> dict[tuple[str, str], pd.Series]:
    """(name, split) -> finite values by epoch."""
    curves = {}
    for key, frame in history.items():
        for split in SPLITS:
            if key.endswith(split):
                values = frame.iloc[:, 0] if isinstance(frame, pd.DataFrame) else pd.Series(frame)
                values = values.astype(float)
                values = values[np.isfinite(values)]
                if len(values):
                    curves[key.removesuffix(split), split] = values
    return curves


def _panels(names: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    panels = [(title, unit, [n for n in members if n in names]) for title, unit, members in PANELS]
    placed = {name for _, _, members in PANELS for name in members}
    others = [
        (name.replace("_", " "), name.replace("_", " "), [name]) for name in dict.fromkeys(names) if name not in placed
    ]
    return [panel for panel in panels if panel[2]] + others


def _grid(ax: Any, n: int) -> np.ndarray:
    if ax is not None or n <= N_COLUMNS:
        return axes_row(ax, n, width=3.7, height=2.9)
    import matplotlib.pyplot as plt

    n_rows = -(-n // N_COLUMNS)
    _, axes = plt.subplots(n_rows, N_COLUMNS, figsize=(3.7 * N_COLUMNS, 2.8 * n_rows), layout="constrained")
    for spare in axes.flat[n:]:
        spare.remove()
    return axes.flat[:n]


def _draw(ax: Axes, curves: Mapping[tuple[str, str], pd.Series], members: Sequence[str]) -> set[str]:
    """Draw the curves of a panel; return which of train and validation occur."""
    drawn = [(name, split) for name in members for split in SPLITS if (name, split) in curves]
    splits = {split[1:] for _, split in drawn}
    for name, split in drawn:
        values = curves[name, split]
        label = " ".join(part for part in (LABELS.get(name, ""), split[1:] if len(splits) > 1 else "") if part)
        ax.plot(
            values.index.to_numpy(),
            values.to_numpy(),
            SPLITS[split],
            color=COLOR.get(name, BLUE),
            marker="o" if len(values) == 1 else None,  # a line needs two epochs
            linewidth=1.6,
            label=label,
        )
    return splits


def _mark_phases(ax: Axes, phases: Mapping[str, tuple[float, float]]) -> None:
    if not phases:
        return
    ax.set_xlim(min(start for start, _ in phases.values()), max(end for _, end in phases.values()))
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.14 * (high - low))  # headroom for the names
    for i, (name, (start, end)) in enumerate(phases.items()):
        ax.axvspan(start, end, color="0.5", alpha=0.10 if i % 2 else 0.03, linewidth=0, zorder=0)
        if i:
            ax.axvline(start, color="0.4", linewidth=0.9, linestyle=":")
        ax.annotate(
            name,
            ((start + end) / 2, 0.985),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="top",
            fontsize="x-small",
            color="0.3",
        )
