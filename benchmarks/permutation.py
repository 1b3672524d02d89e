"""Differences that imputation makes up between two real cell types, in genes whose counts were shuffled between them.

    python benchmarks/permutation.py [--data FOLDER] [--sets pbmc_facs scmix_sc_celseq2_5cl] [--seeds 0 1 2]

After Andrews & Hemberg 2018 (doi:10.12688/f1000research.16613). In the two types whose means are closest, the counts of
every gene whose raw values do not differ (Wilcoxon, p > .2) are shuffled over the cells of both; all cells are imputed,
and the share of these genes that differ (Wilcoxon, p < .05) is counted. FOLDER (or the environment variable
SCGACL_DATA) holds the data of ``accuracy.py``; cells and genes are chosen as there. A gene that is told apart by other
types may keep on following its cluster, which the shuffle does not know of, so genes that keep their own mean are
given by themselves (NaN if there are none). Raw values are the control: shuffled counts over libraries that differ, as
those of the sorted populations do, differ a little, too. Prints versions and one line a result.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import _real
from _accuracy.methods import fit_ours
from _accuracy.sets import Data

SETS = ("pbmc_facs", "scmix_sc_celseq2_5cl")  # types that are known without the expression


def differing(values: np.ndarray, first: np.ndarray, second: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """P value of each gene (Wilcoxon rank sum) between two groups of cells."""
    from scipy.stats import mannwhitneyu

    p = mannwhitneyu(values[first][:, genes], values[second][:, genes]).pvalue
    return np.nan_to_num(p, nan=1.0)  # a constant gene


def closest(values: np.ndarray, labels: np.ndarray) -> tuple[str, str]:
    """The two types whose means are closest."""
    names = np.unique(labels)
    means = np.stack([values[labels == name].mean(0) for name in names])
    distance = np.linalg.norm(means[:, None] - means, axis=2)
    np.fill_diagonal(distance, np.inf)
    return tuple(names[list(np.unravel_index(distance.argmin(), distance.shape))])


def measure(data: Data, path: Path, seed: int):
    """Share of the shuffled genes that differ, for each kind of values."""
    from scipy import sparse

    from scgacl_scvi.evaluate import baselines, lognorm

    counts, raw = data.counts.toarray(), lognorm(data.counts).toarray()
    first, second = (np.flatnonzero(data.labels == one) for one in closest(raw, data.labels))
    genes = np.flatnonzero(differing(raw, first, second, np.arange(counts.shape[1])) > 0.2)
    both, rng = np.concatenate([first, second]), np.random.default_rng(seed)
    for gene in genes:
        counts[both, gene] = counts[rng.permutation(both), gene]
    shuffled = sparse.csr_matrix(counts)
    model = fit_ours(shuffled, seed)
    own = model.module.gate.keeps_own_mean.numpy()[genes]
    sample = model.posterior_predictive_sample(n_samples=1)
    results = {
        "raw": lognorm(shuffled).toarray(),
        "kNN-smoothing": lognorm(baselines.knn_smoothing(shuffled, seed=seed)),
        "posterior sample": lognorm(np.asarray(sample.todense()).reshape(counts.shape)),
    }
    for policy in ("impute", "denoise"):
        results[policy] = model.get_imputed_expression(policy=policy, return_numpy=True, layer_key=None)
    for label, values in results.items():
        called = differing(np.asarray(values), first, second, genes) < 0.05
        yield {
            "values": label,
            "genes": len(genes),
            "differ": float(called.mean()),
            "of own mean": float(called[own].mean()) if own.any() else float("nan"),
        }


if __name__ == "__main__":
    _real.main(__doc__, SETS, ("scipy",), measure)
