"""Recovery of a known truth: the default with and without labels, the published preset, and the controls.

    python benchmarks/recovery.py --data FOLDER [--set sim_scgacl_groups3] [--seeds 0 1 2] [--paper]

FOLDER (or the environment variable SCGACL_DATA) holds ``<set>.h5ad`` with counts in X, ``layers["truth"]`` and
``obs["cell_type"]``. Without a folder the package's own simulation is used. Prints versions and one row a fit.
"""

import argparse
import importlib.metadata
import logging
import os
import time

import anndata
import numpy as np
import pandas as pd
import scvi
from scipy import sparse

from scgacl_scvi import SCGACL, datasets, evaluate
from scgacl_scvi.evaluate import baselines


def dense(x) -> np.ndarray:
    return x.toarray() if sparse.issparse(x) else np.asarray(x)


def read(folder: str | None, name: str) -> tuple[anndata.AnnData, str]:
    if folder:
        return anndata.read_h5ad(os.path.join(folder, f"{name}.h5ad")), "cell_type"
    return datasets.demo(0), "group"


def score(name: str, seed, imputed, adata, truth, labels: str, seconds: float) -> dict:
    found = evaluate.recovery(imputed, truth, adata.X)
    agreement = evaluate.clustering_agreement(imputed, adata.obs[labels], seed=0)
    variance = evaluate.within_type_variance_ratio(imputed, evaluate.lognorm(truth), adata.obs[labels])
    row = {"method": name, "seed": seed, **vars(found), "ari": agreement.ari, "variance": variance, "seconds": seconds}
    print({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()}, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("SCGACL_DATA"))
    parser.add_argument("--set", default="sim_scgacl_groups3")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--paper", action="store_true", help="also fit preset='paper' (minutes)")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print({name: importlib.metadata.version(name) for name in ("scgacl-scvi", "scvi-tools", "torch", "numpy")})

    adata, labels = read(arguments.data, arguments.set)
    truth, counts = dense(adata.layers["truth"]), dense(adata.X)
    rows = [
        score("no imputation", "", evaluate.lognorm(counts), adata, truth, labels, 0.0),
        score("gene mean", "", baselines.gene_mean_impute(counts), adata, truth, labels, 0.0),
        score("type mean (uses labels)", "", baselines.type_mean(counts, adata.obs[labels]), adata, truth, labels, 0.0),
    ]
    fits = [("default, no labels", None, {}), ("default, labels", labels, {})]
    if arguments.paper:
        fits = [("paper, labels", labels, {"preset": "paper"})]
    for name, key, settings in fits:
        for seed in arguments.seeds:
            scvi.settings.seed = seed
            SCGACL.setup_anndata(adata, labels_key=key)
            start = time.perf_counter()
            model = SCGACL(adata, **settings)
            model.train(enable_progress_bar=False)
            imputed = model.get_imputed_expression(return_numpy=True, layer_key=None)
            rows.append(score(name, seed, imputed, adata, truth, labels, time.perf_counter() - start))
    table = pd.DataFrame(rows).drop(columns="seed").groupby("method", sort=False).mean()
    print(table.round(4).to_string())


if __name__ == "__main__":
    main()
