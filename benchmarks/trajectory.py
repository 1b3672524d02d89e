"""Order of a trajectory before and after imputation: rank correlation of diffusion pseudotime with what is known.

    python benchmarks/trajectory.py [--data FOLDER] [--sets deng2014_subset133 paul15] [--seeds 0 1 2]

FOLDER (or the environment variable SCGACL_DATA) holds the data of ``accuracy.py``; cells and genes are chosen as there.
Stages of embryos (deng2014_subset133, read counts) and the published pseudotime (paul15, derived from expression). The
same steps for raw and imputed values on the lognorm scale, with scanpy: 30 principal components, 15 neighbours,
diffusion map, pseudotime from each of the eight cells that are known to be first, one after the other (one root alone
decides by luck); the mean of the eight correlations. Seeds are of training and of the neighbour search; raw values have
the latter alone. Beside them the correlation with the library size, which is no result but a warning: the published
pseudotime of paul15 starts with its cells of fewest counts. Prints versions and one line a result.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import _real
from _accuracy.methods import fit_ours
from _accuracy.sets import Data

ORDER = {"deng2014_subset133": "stage_order", "paul15": "Pseudotime"}
N_ROOTS = 8


def pseudotime_agreement(values: np.ndarray, order: np.ndarray, seed: int) -> float:
    """Spearman correlation of diffusion pseudotime with the order, cells x genes (lognorm) and cells."""
    import anndata
    import scanpy as sc
    from scipy.stats import spearmanr

    adata = anndata.AnnData(np.asarray(values, dtype=np.float32))
    sc.pp.pca(adata, n_comps=30, random_state=seed)
    sc.pp.neighbors(adata, n_neighbors=15, random_state=seed)
    sc.tl.diffmap(adata)
    found = []
    for root in np.argsort(order, kind="stable")[:N_ROOTS]:
        adata.uns["iroot"] = int(root)
        sc.tl.dpt(adata)
        pseudotime = adata.obs["dpt_pseudotime"].to_numpy()
        reached = np.isfinite(pseudotime)
        found.append(spearmanr(pseudotime[reached], order[reached]).statistic)
    return float(np.mean(found))


def measure(data: Data, path: Path, seed: int):
    """Agreement of raw and of imputed values."""
    import anndata
    from scipy.stats import spearmanr

    from scgacl_scvi.evaluate import lognorm

    def row(label: str, score: float) -> dict:
        return {"values": label, "spearman": float(score)}

    known = anndata.read_h5ad(path, backed="r").obs.loc[data.obs_names, ORDER[path.stem]]
    order = known.to_numpy(dtype=float)
    yield row("library size", spearmanr(np.ravel(data.counts.sum(1)), order).statistic)
    yield row("raw", pseudotime_agreement(lognorm(data.counts).toarray(), order, seed))
    model = fit_ours(data.counts, seed)
    for policy in ("impute", "denoise"):
        values = model.get_imputed_expression(policy=policy, return_numpy=True, layer_key=None)
        yield row(f"{policy} ({model.module.gene_likelihood})", pseudotime_agreement(values, order, seed))


if __name__ == "__main__":
    _real.main(__doc__, list(ORDER), ("scanpy", "anndata"), measure)
