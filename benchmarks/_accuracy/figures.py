"""Results as figures: a dot at the mean of the seeds, a line over their range."""

from pathlib import Path

import pandas as pd

from .methods import CONTROL, KIND_OF, LABELS, OURS, PEER
from .sets import HELDOUT, NULL, RECOVERY, SETS
from .tables import HIDDEN, number

BLUE, INK, GREY = "#0072B2", "#3A3F45", "#9AA3AD"
DPI = 150


def write(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw what there are results for."""
    import matplotlib as mpl

    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "svg.hashsalt": "scgacl"}):
        for name, draw in (("heldout", heldout), ("recovery", recovery), ("null", null), ("cost", cost)):
            figure = draw(table)
            if figure is not None:
                path = folder / f"{name}.png"
                # No version or date inside: the same results give the same file.
                figure.savefig(path, dpi=DPI, facecolor="white", metadata={"Software": None})
                written.append(path)
    return written


def colour(method: str) -> str:
    """Ours stands out, controls step back."""
    return {OURS: BLUE, CONTROL: GREY}.get(KIND_OF[method], INK)


def ranges(table: pd.DataFrame, task: str, metric: str, hidden: tuple[str, ...] = HIDDEN) -> pd.DataFrame:
    """Mean, lowest and highest over seeds, by set and method."""
    chosen = table[(table["task"] == task) & (table["metric"] == metric) & ~table["method"].isin(hidden)]
    return chosen.groupby(["set", "method"])["value"].agg(["mean", "min", "max"])


def dots(
    ax,
    part: pd.DataFrame,
    *,
    lowest: bool = False,
    floor: float | None = None,
    log: bool = False,
    ordered: bool = True,
) -> None:
    """One row a method, the best on top; what lies left of ``floor`` is written at the edge instead."""
    part = part.sort_values("mean", ascending=not lowest) if ordered else part
    shown = part["mean"] if floor is None else part["mean"].clip(lower=floor)
    if log:
        low, high = part["min"].min() / 1.3, part["max"].max() * 1.3
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
    else:
        span = (part["max"].max() - shown.min()) or 1.0
        low, high = shown.min() - 0.06 * span, part["max"].max() + 0.06 * span
    for row, (method, values) in enumerate(part.iterrows()):
        paint = colour(method)
        if floor is not None and values["mean"] < floor:
            ax.annotate(
                f"\N{BLACK LEFT-POINTING SMALL TRIANGLE} {number(values['mean'], 2)}",
                *((low, row), (3, 0)),
                textcoords="offset points",
                va="center",
                color=paint,
                fontsize="small",
            )
            continue
        ax.plot([max(values["min"], low), values["max"]], [row, row], color=paint, linewidth=2.2, alpha=0.45)
        ax.plot(values["mean"], row, "o", color=paint, markersize=7 if KIND_OF[method] == OURS else 5.5)
    ax.set_yticks(range(len(part)), [LABELS[method] for method in part.index])
    for tick, method in zip(ax.get_yticklabels(), part.index, strict=True):
        tick.set_color(colour(method))
        tick.set_fontweight("bold" if KIND_OF[method] == OURS else "normal")
    ax.set_xlim(low, high)
    ax.set_ylim(-0.6, len(part) - 0.4)
    ax.grid(axis="x", color="0.92", linewidth=0.8)
    ax.grid(axis="y", color="0.96", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(length=0)


def panels(n: int, rows_each: int, n_columns: int = 3):
    """A grid of Axes with room for ``rows_each`` names in each; those not needed are hidden."""
    import matplotlib.pyplot as plt

    n_columns = min(n, n_columns)
    n_rows = -(-n // n_columns)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(4.7 * n_columns, (0.23 * rows_each + 0.9) * n_rows),
        squeeze=False,
        layout="constrained",
    )
    for ax in axes.flat[n:]:
        ax.set_visible(False)
    return figure, list(axes.flat[:n])


def heldout(table: pd.DataFrame):
    """Gain on held-out molecules, a panel for each UMI set."""
    found = ranges(table, HELDOUT, "gain_nats")
    sets = [key for key in SETS if SETS[key].umi and key in found.index.get_level_values(0)]
    if not sets:
        return None
    figure, axes = panels(len(sets), max(len(found.loc[key]) for key in sets))
    for ax, key in zip(axes, sets, strict=True):
        part = found.loc[key]
        dots(ax, part, floor=min(-part["mean"].max(), part["mean"].nlargest(4).min()))
        ax.axvline(0, color="0.6", linewidth=0.9, zorder=0)
        ax.set_title(SETS[key].title, loc="left")
    figure.supxlabel("gain over library \N{MULTIPLICATION SIGN} gene mean, nats per held-out molecule", fontsize=10)
    return figure


def recovery(table: pd.DataFrame):
    """Pearson correlation and RMSE on the dropouts, a row for each set with a truth."""
    pearson, rmse = (ranges(table, RECOVERY, f"{metric}_dropouts") for metric in ("pearson", "rmse"))
    sets = [key for key in SETS if key in pearson.index.get_level_values(0)]
    if not sets:
        return None
    figure, axes = panels(2 * len(sets), max(len(pearson.loc[key]) for key in sets), n_columns=2)
    for key, left, right in zip(sets, axes[::2], axes[1::2], strict=True):
        dots(left, pearson.loc[key], floor=0.4 * pearson.loc[key]["mean"].max())
        dots(right, rmse.loc[key], lowest=True)
        left.set_title(f"{SETS[key].title}: Pearson", loc="left")
        right.set_title("RMSE", loc="left")
    figure.supxlabel("against the truth, on the dropouts, lognorm scale", fontsize=10)
    return figure


def null(table: pd.DataFrame):
    """Invented against true correlations."""
    false, true = (ranges(table, NULL, metric) for metric in ("false_share", "true_share"))
    if false.empty:
        return None
    figure, axes = panels(2, len(false), n_columns=2)
    left = false.loc["null"].sort_values("mean", ascending=False)
    dots(axes[0], left, ordered=False)
    axes[0].set_title("invented", loc="left")
    dots(axes[1], true.loc["null"].loc[left.index], ordered=False)  # same rows, for reading across
    axes[1].set_title("found", loc="left")
    axes[1].set_yticklabels([])
    figure.supxlabel(
        "significant share of the gene pairs that are not (left) and are (right) both differential", fontsize=10
    )
    return figure


def cost(table: pd.DataFrame):
    """Processor time and memory of the fits to held-out data, all UMI sets and seeds: median and range."""
    chosen = table[(table["task"] == HELDOUT) & table["set"].map(lambda key: SETS[key].umi)]
    chosen = chosen[chosen["method"].map(KIND_OF).isin([PEER, OURS])]
    figure = None
    for position, (metric, title) in enumerate((("cpu_seconds", "CPU seconds"), ("peak_mb", "memory, MB"))):
        part = chosen[chosen["metric"] == metric].groupby("method")["value"].agg(["median", "min", "max"])
        if part.empty:
            return None
        if figure is None:
            figure, axes = panels(2, len(part), n_columns=2)
        dots(axes[position], part.rename(columns={"median": "mean"}).clip(lower=1e-2), lowest=True, log=True)
        axes[position].set_title(title, loc="left")
    return figure
