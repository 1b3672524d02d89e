"""The imputed values beside controls, and the genes to show."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from scgacl_scvi._keys import DROPOUT_LAYER, GROUP, LAYER, TRUTH_LAYER

if TYPE_CHECKING:
    from anndata import AnnData

OURS = "scgacl"
NOTHING = "no imputation"
GENE_MEAN = "gene mean"
TYPE_MEAN = "type mean (uses true labels)"


@dataclass(frozen=True)
class Measure:
    """A column of the comparison."""

    name: str
    better: Literal["higher", "lower", "near 1"] = "higher"

    def badness(self, value: float) -> float:
        """Lower is better, to three decimals: what is equal there counts as equal."""
        value = round(float(value), 3)
        return round({"higher": -value, "lower": value, "near 1": abs(value - 1)}[self.better], 3)


MEASURES = {
    "pearson_dropouts": Measure("Pearson, dropouts"),
    "rmse_dropouts": Measure("RMSE, dropouts", "lower"),
    "pearson_all": Measure("Pearson, all entries"),
    "rmse_all": Measure("RMSE, all entries", "lower"),
    "median_pearson_cells": Measure("Pearson, median cell"),
    "median_pearson_genes": Measure("Pearson, median gene"),
    "ari": Measure("ARI of k-means"),
    "true_zeros_filled": Measure("true zeros filled", "lower"),
    "variance_kept": Measure("variance in types", "near 1"),
}

_DROPOUT_SHARE = (0.3, 0.7)


def comparison(adata: "AnnData", seed: int) -> pd.DataFrame:
    """Score our layer and three controls against the truth.

    Parameters
    ----------
    adata
        Counts in ``X``; layers of the truth (counts) and of imputed values (lognorm); true types in ``obs``.
    seed
        Of k-means.

    Returns
    -------
    One row per method, one column per measure.
    """
    from scgacl_scvi.evaluate import (
        baselines,
        clustering_agreement,
        lognorm,
        recovery,
        within_type_variance_ratio,
    )

    types, truth = adata.obs[GROUP], lognorm(adata.layers[TRUTH_LAYER])
    methods = {
        OURS: lambda: adata.layers[LAYER],
        NOTHING: lambda: lognorm(adata.X),
        GENE_MEAN: lambda: baselines.gene_mean_impute(adata.X),
        TYPE_MEAN: lambda: baselines.type_mean(adata.X, types),
    }
    rows = {}
    for name, make in methods.items():
        values = make()
        scores = asdict(recovery(values, adata.layers[TRUTH_LAYER], adata.X))
        scores["ari"] = clustering_agreement(values, types, seed).ari
        scores["true_zeros_filled"] = _true_zeros_filled(values, adata.layers[TRUTH_LAYER])
        scores["variance_kept"] = within_type_variance_ratio(values, truth, types)
        rows[name] = {measure: scores[measure] for measure in MEASURES}
    return pd.DataFrame.from_dict(rows, orient="index")


@dataclass(frozen=True)
class Outcome:
    """Measures in which ours is better than, equal to (to three decimals) and worse than another method."""

    better: tuple[str, ...]
    equal: tuple[str, ...]
    worse: tuple[str, ...]


def against(table: pd.DataFrame, rival: str) -> Outcome:
    """Compare the row of ours with that of a rival."""
    found: dict[str, list[str]] = {"better": [], "equal": [], "worse": []}
    for key, measure in MEASURES.items():
        ours, theirs = measure.badness(table.loc[OURS, key]), measure.badness(table.loc[rival, key])
        found["equal" if ours == theirs else "better" if ours < theirs else "worse"].append(key)
    return Outcome(**{name: tuple(keys) for name, keys in found.items()})


def informative_pair(adata: "AnnData") -> tuple[str, str]:
    """Find the two genes with the strongest correlation, of either sign, in the truth (lognorm).

    They are among genes that dropout hides in 30 to 70 % of the cells, so that there is something to see before and
    after; among all genes if there are fewer than two such.
    """
    from scgacl_scvi.evaluate import lognorm

    truth = lognorm(adata.layers[TRUTH_LAYER]).toarray()
    hidden = np.asarray(adata.layers[DROPOUT_LAYER].mean(axis=0)).ravel()
    varies = truth.std(axis=0) > 0
    chosen = np.flatnonzero(varies & (hidden >= _DROPOUT_SHARE[0]) & (hidden <= _DROPOUT_SHARE[1]))
    if len(chosen) < 2:
        chosen = np.flatnonzero(varies)
    strength = np.triu(np.abs(np.corrcoef(truth[:, chosen].T)), k=1)
    first, second = np.unravel_index(np.argmax(strength), strength.shape)
    return str(adata.var_names[chosen[first]]), str(adata.var_names[chosen[second]])


def _true_zeros_filled(values: Any, truth: Any) -> float:
    """Share of the entries without a true count that are not zero; 0 if there are none."""
    is_zero = (truth.toarray() if sparse.issparse(truth) else np.asarray(truth)) == 0
    filled = (values.toarray() if sparse.issparse(values) else np.asarray(values)) != 0
    return float(filled[is_zero].mean()) if is_zero.any() else 0.0
