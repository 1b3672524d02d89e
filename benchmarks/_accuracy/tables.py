"""Results as Markdown tables."""

import math
from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from .methods import CHECK, CONTROL, KIND_OF, LABELS, METHODS, OURS
from .sets import HELDOUT, NULL, RECOVERY, SETS, STRUCTURE
from .store import FAILED

HIDDEN = ("leak", "all_zeros", "truth")
"""Rows of a check, not of a method that could win."""


def number(value: float, decimals: int = 3) -> str:
    """Figure without a leading zero, with a real minus sign; a dash for none."""
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    if math.isinf(value):
        return "\N{INFINITY}"
    text = f"{value:z.{decimals}f}"
    head, _, tail = text.partition(".")
    if head in ("0", "-0") and tail:
        text = f"{head[:-1]}.{tail}"
    return text.replace("-", "\N{MINUS SIGN}")


def whole(value: float) -> str:
    """Seconds or megabytes: one decimal below 10, whole above."""
    return "\N{EN DASH}" if math.isnan(value) else f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def markdown(rows: Iterable[Sequence[str]], header: Sequence[str], n_texts: int = 1) -> str:
    """A table, numbers on the right; where there is nothing to show, a word that says so."""
    rows = list(rows)
    if not rows:
        return "(no results yet)"
    lines = [f"| {' | '.join(header)} |", "|---" * n_texts + "|--:" * (len(header) - n_texts) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def name(method: str) -> str:
    """Label of a method; ours in bold."""
    return f"**{LABELS[method]}**" if KIND_OF[method] == OURS else LABELS[method]


def means(table: pd.DataFrame, task: str, metric: str) -> pd.DataFrame:
    """Mean over seeds, methods x sets, in the order of the lists."""
    chosen = table[(table["task"] == task) & (table["metric"] == metric)]
    wide = chosen.pivot_table(index="method", columns="set", values="value", aggfunc="mean")
    wide = wide.reindex([key for key in LABELS if key in wide.index])
    return wide[[key for key in SETS if key in wide.columns]]


def umi(wide: pd.DataFrame) -> pd.DataFrame:
    """The sets that held-out molecules can judge."""
    return wide[[key for key in wide.columns if SETS[key].umi]]


def titles(wide: pd.DataFrame) -> list[str]:
    """Names of sets for people."""
    return [SETS[key].title for key in wide.columns]


def by_mean(wide: pd.DataFrame, rows: Iterable[str] = ()) -> pd.DataFrame:
    """Methods sorted by their mean rank over the sets, those without a figure last; ``rows`` are left out."""
    wide = wide.drop(index=[key for key in rows if key in wide.index])
    order = wide.rank(ascending=False).mean(axis=1).sort_values(kind="stable").index
    return wide.loc[order]


def bold_best(wide: pd.DataFrame, *, lowest: bool = False, decimals: int = 3) -> list[list[str]]:
    """Rows of text, the best figure of each column in bold (controls and checks compete, too, but those hidden)."""
    fair = wide.drop(index=[key for key in HIDDEN if key in wide.index])
    best = fair.min() if lowest else fair.max()
    return [
        [name(method)]
        + [
            f"**{number(value, decimals)}**"
            if value == best[column] and method in fair.index
            else number(value, decimals)
            for column, value in row.items()
        ]
        for method, row in wide.iterrows()
    ]


# --- one section each ----------------------------------------------------------------------------------------------


def setting(table: pd.DataFrame) -> str:
    """Which data, how large, which seeds, which versions."""
    rows = []
    for (task, each), part in table.groupby(["task", "set"], sort=False):
        first = part.iloc[-1]
        seeds = ", ".join(map(str, sorted(part["seed"].unique())))
        prints = part["fingerprint"].unique()
        mark = f"`{prints[0]}`" if len(prints) == 1 else "one a seed"
        rows.append([SETS[each].title, f"`{each}`", task, str(first["n_cells"]), str(first["n_genes"]), seeds, mark])
    sets = markdown(rows, ["set", "file", "task", "cells", "genes", "seeds", "fingerprint"], n_texts=3)
    worked = table[table["metric"] != FAILED]
    found: dict[str, list[str]] = {}
    for (method, version), _ in worked.groupby(["method", "version"], sort=False):
        # scVI is not named after its package
        found.setdefault(f"scvi-tools {version}" if method.startswith("scvi") else version, []).append(LABELS[method])
    lines = [f"`{version}`: {', '.join(names)}" for version, names in found.items()]
    threads = sorted(worked["threads"].unique())
    return (
        f"{sets}\n\nVersions (after the + a digest of our code behind a method): {'; '.join(lines)}. "
        f"Threads of a fit: {', '.join(map(str, threads))}."
    )


def ranks(table: pd.DataFrame) -> str:
    """On how many sets each method is first, and its mean rank, among methods that use no labels."""
    gains = umi(means(table, HELDOUT, "gain_nats"))
    gains = gains.drop(index=[key for key in HIDDEN if key in gains.index])
    complete = gains[gains.notna().all(axis=1)]
    places = complete.rank(ascending=False)
    rows = [
        [name(key), f"{int((places.loc[key] == 1).sum())} of {places.shape[1]}", number(places.loc[key].mean(), 1)]
        for key in places.mean(axis=1).sort_values(kind="stable").index
    ]
    return markdown(rows, ["held-out molecules", "first on", "mean rank"])


def heldout(table: pd.DataFrame) -> str:
    """Gain in nats on every set."""
    gains = umi(means(table, HELDOUT, "gain_nats")).dropna(how="all")
    last = [key for key in HIDDEN if key in gains.index]
    wide = pd.concat([by_mean(gains, last), gains.loc[last]])
    return markdown(bold_best(wide), ["gain, nats per held-out molecule", *titles(wide)])


def of_logs(table: pd.DataFrame) -> str:
    """Squared error of log values on every set, less that of no denoising."""
    gains = umi(means(table, HELDOUT, "mse_gain")).dropna(how="all")
    last = [key for key in HIDDEN if key in gains.index]
    wide = pd.concat([by_mean(gains, last), gains.loc[last]])
    return markdown(bold_best(wide), ["1 - MSE / MSE(no denoising)", *titles(wide)])


def as_coded(table: pd.DataFrame) -> str:
    """The three scores of Open Problems, median over the sets, and who was caught seeing the held-out counts."""
    scores = {key: umi(means(table, HELDOUT, key)) for key in ("score", "score_as_coded", "mse_gain", "leaks")}
    columns = {key: wide.dropna().median(axis=1) for key, wide in scores.items() if key != "leaks"}
    wide = pd.DataFrame(columns).dropna()
    wide["mean of the last two"] = wide[["score_as_coded", "mse_gain"]].mean(axis=1)
    wide = wide.sort_values("score", ascending=False, kind="stable")
    leaks = scores["leaks"]
    rows = [[name(key), *(number(value, 2) for value in row), _caught(leaks.loc[key])] for key, row in wide.iterrows()]
    header = ["scaled: 0 no denoising, 1 held-out counts", "Poisson as documented", "Poisson as coded", "MSE"]
    table_text = markdown(rows, [*header, "mean of the last two", "leak found"])
    if "all_zeros" not in scores["score"].index:
        return table_text
    coded, documented = (scores[key].loc["all_zeros"] for key in ("score_as_coded", "score"))
    lowest = int((scores["score"].idxmin() == "all_zeros").sum())
    return (
        f"{table_text}\n\nAll zeros, set by set: as coded {number(coded.min(), 2)} to {number(coded.max(), 2)} "
        f"({SETS[coded.idxmax()].title}, the highest), as documented {number(documented.min(), 2)} to "
        f"{number(documented.max(), 2)}, the lowest of all methods on {lowest} of {len(documented)} sets."
    )


def _caught(shares: pd.Series) -> str:
    return "**on all sets**" if (shares == 1).all() else "no" if (shares == 0).all() else "on some splits"


def recovery(table: pd.DataFrame) -> str:
    """A table for each set with a truth."""
    metrics = {
        "pearson_dropouts": "Pearson, dropouts",
        "rmse_dropouts": "RMSE, dropouts",
        "cosine_dropouts": "cosine, dropouts",
        "pearson_all": "Pearson, all",
        "rmse_all": "RMSE, all",
        "median_pearson_cells": "median per cell",
        "median_pearson_genes": "median per gene",
        "variance_kept": "variance kept",
    }
    found = {key: means(table, RECOVERY, key) for key in [*metrics, "seconds"]}
    parts = []
    for each in found["pearson_dropouts"].columns:
        shown = {key: found[key][each] for key in metrics if each in found[key]}
        wide = pd.DataFrame(shown).dropna(how="all")
        wide = wide.sort_values("pearson_dropouts", ascending=False, kind="stable")
        seconds = found["seconds"][each]
        texts = {}
        for key in wide:
            lowest = key.startswith("rmse")
            column = wide[[key]] if key != "variance_kept" else None
            texts[key] = (
                [row[1] for row in bold_best(column, lowest=lowest)] if column is not None else map(number, wide[key])
            )
        rows = [
            [name(method), *cells, whole(seconds[method])]
            for method, *cells in zip(wide.index, *texts.values(), strict=True)
        ]
        header = [f"{SETS[each].title}, policy `{SETS[each].policy}`", *(metrics[key] for key in wide), "seconds"]
        parts.append(markdown(rows, header))
    return "\n\n".join(parts) or "(no results yet)"


def truth_last(table: pd.DataFrame) -> str:
    """Held-out gain beside recovery where dropout was simulated."""
    each = "sim_scgacl_groups3"
    gains, pearson = means(table, HELDOUT, "gain_nats"), means(table, RECOVERY, "pearson_dropouts")
    if each not in gains or each not in pearson:
        return "(no results yet)"
    wide = pd.DataFrame({"gain": gains[each], "pearson": pearson[each]})
    wide = wide.drop(index="leak", errors="ignore").dropna(subset="gain").sort_values("gain", ascending=False)
    rows = [[name(key), number(row["gain"], 2), number(row["pearson"])] for key, row in wide.iterrows()]
    return markdown(rows, [SETS[each].title, "held-out gain, nats per molecule", "recovery: Pearson on the dropouts"])


def null(table: pd.DataFrame) -> str:
    """Invented and true correlations, mean and range over seeds."""
    chosen = table[table["task"] == NULL]
    rows = []
    for key in [key for key in LABELS if key in set(chosen["method"])]:
        part = chosen[chosen["method"] == key]
        false, true = (part.loc[part["metric"] == metric, "value"] for metric in ("false_share", "true_share"))
        if len(false):
            rows.append((false.mean(), [name(key), with_range(false), with_range(true), str(len(false))]))
    rows.sort(key=lambda row: row[0])
    header = ["significant share of gene pairs", "not both differential (invented)", "both differential", "seeds"]
    return markdown([row for _, row in rows], header)


def with_range(values: pd.Series) -> str:
    """Mean, and the range over seeds."""
    if len(values) == 1:
        return number(values.iloc[0])
    return f"{number(values.mean())} ({number(values.min())}\N{EN DASH}{number(values.max())})"


def structure(table: pd.DataFrame) -> str:
    """Clusters, spread inside types, variance kept, on labels that do not come from the expression."""
    parts = []
    for metric, title, lowest in (
        ("ari", "ARI of a fixed clustering", False),
        ("spread", "distance to the type's mean / distance between means", True),
        ("variance_kept", "variance inside types, relative to raw", None),
    ):
        wide = means(table, STRUCTURE, metric)
        if wide.empty:
            continue
        rows = (
            [[name(key), *map(number, row)] for key, row in wide.iterrows()]
            if lowest is None
            else bold_best(wide, lowest=lowest)
        )
        parts.append(markdown(rows, [title, *titles(wide)]))
    return "\n\n".join(parts) or "(no results yet)"


def cost(table: pd.DataFrame) -> str:
    """Median over the held-out fits."""
    chosen = table[(table["task"] == HELDOUT) & table["set"].map(lambda key: SETS[key].umi)]
    metrics: dict[str, Callable[[float], str]] = {"seconds": whole, "cpu_seconds": whole, "peak_mb": whole}
    wide = chosen[chosen["metric"].isin(metrics)].pivot_table(
        index="method", columns="metric", values="value", aggfunc="median"
    )
    wide = wide.drop(index=[key for key in wide.index if KIND_OF[key] in (CONTROL, CHECK)])
    if wide.empty:
        return "(no results yet)"
    wide = wide.sort_values("cpu_seconds", kind="stable")
    rows = [[name(key), *(whole(row[metric]) for metric in metrics)] for key, row in wide.iterrows()]
    return markdown(rows, ["median of the held-out fits", "seconds", "CPU seconds", "memory, MB"])


def failures(table: pd.DataFrame) -> str:
    """Methods that have no figures somewhere, and why."""
    bad = table[table["metric"] == FAILED]
    lines = []
    for (method, note), part in bad.groupby(["method", "note"], sort=False):
        where = sorted({f"{row.task}: {SETS[row.set].title}" for row in part.itertuples()})
        lines.append(f"- {LABELS[method]} ({', '.join(where)}): {note}")
    ran = table.groupby("method")[["task", "set"]].apply(lambda part: set(part.itertuples(index=False, name=None)))
    for method in METHODS.values():
        wanted = {
            (task, each.name)
            for each in SETS.values()
            for task in each.tasks
            if task in method.tasks and method.needs is None and (method.only is None or each.name in method.only)
        }
        missing = wanted - ran.get(method.key, set())
        if method.key not in ran:
            lines.append(f"- {LABELS[method.key]}: not run yet.")
        elif missing:
            where = sorted(f"{task}: {SETS[each].title}" for task, each in missing)
            lines.append(f"- {LABELS[method.key]}: not run yet on {', '.join(where)}.")
    return "\n".join(["Without figures:", "", *lines]) if lines else "Every method ran on every set."
