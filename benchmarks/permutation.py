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

import argparse
import importlib.metadata
import logging
import os
import sys
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from _accuracy.sets import prepare

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


def measure(name: str, folder: Path, seed: int):
    """Share of the shuffled genes that differ, for each kind of values."""
    import anndata
    import scvi
    import torch
    from scipy import sparse

    from scgacl_scvi import SCGACL
    from scgacl_scvi.evaluate import baselines, lognorm

    data = prepare(name, folder, seed)
    torch.set_num_threads(1)  # the choice of genes sets it to all
    counts, raw = data.counts.toarray(), lognorm(data.counts).toarray()
    first, second = (np.flatnonzero(data.labels == one) for one in closest(raw, data.labels))
    genes = np.flatnonzero(differing(raw, first, second, np.arange(counts.shape[1])) > 0.2)
    both, rng = np.concatenate([first, second]), np.random.default_rng(seed)
    for gene in genes:
        counts[both, gene] = counts[rng.permutation(both), gene]
    scvi.settings.seed = seed
    shuffled = sparse.csr_matrix(counts.astype(np.float32))
    adata = anndata.AnnData(shuffled.copy())
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata)
    model.train(enable_progress_bar=False)
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
            "differ": called.mean(),
            "of own mean": called[own].mean() if own.any() else np.nan,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SCGACL_DATA"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("no folder of data; pass --data FOLDER or set SCGACL_DATA")
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print({name: importlib.metadata.version(name) for name in ("scgacl-scvi", "scvi-tools", "torch", "scipy")})
    for name in arguments.sets:
        for seed in arguments.seeds:
            for row in measure(name, Path(arguments.data), seed):
                rounded = {
                    key: round(float(v), 3) if isinstance(v, float | np.floating) else v for key, v in row.items()
                }
                print({"set": name, "seed": seed, **rounded}, flush=True)


if __name__ == "__main__":
    main()
