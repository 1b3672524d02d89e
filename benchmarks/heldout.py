"""Molecular cross-validation against scVI: gain over library x gene mean in nats per held-out molecule, and time.

    python benchmarks/heldout.py --data FOLDER --sets pbmc3k paul15 [--seeds 0 1 2] [--genes 2000] [--without-scvi]

All cells, the most variable genes (scanpy's default flavour on log-normalised counts), 90 % of the molecules for
training. scVI has its defaults and 25 posterior samples. Prints versions and a table with the controls.
"""

import argparse
import importlib.metadata
import logging
import os

import anndata
import numpy as np
import scanpy as sc
import scvi
from scipy import sparse

from scgacl_scvi import SCGACL, evaluate


def variable_counts(path: str, n_genes: int) -> sparse.csr_matrix:
    adata = anndata.read_h5ad(path)
    normalised = adata.copy()
    sc.pp.filter_genes(normalised, min_cells=3)
    sc.pp.normalize_total(normalised)
    sc.pp.log1p(normalised)
    sc.pp.highly_variable_genes(normalised, n_top_genes=min(n_genes, normalised.n_vars))
    counts = sparse.csr_matrix(adata[:, normalised.var_names[normalised.var["highly_variable"]]].X)
    return counts[np.ravel(counts.sum(1)) > 10]


def ours(counts) -> np.ndarray:
    adata = anndata.AnnData(counts)
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata)
    model.train(enable_progress_bar=False)
    n_epochs = len(model.history["train_loss"])
    print(
        f"  SCGACL: {model.module.gene_likelihood}, {model.module.prior.n_active} clusters, "
        f"best epoch {model.best_epoch_} of {n_epochs}",
        flush=True,
    )
    return model.get_imputed_expression(policy="denoise", scale="counts", return_numpy=True)


def scvi_defaults(counts) -> np.ndarray:
    adata = anndata.AnnData(counts)
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata)
    model.train(enable_progress_bar=False)
    return model.get_normalized_expression(library_size="latent", n_samples=25, return_numpy=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("SCGACL_DATA"), required="SCGACL_DATA" not in os.environ)
    parser.add_argument("--sets", nargs="+", default=["pbmc3k", "paul15"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--without-scvi", action="store_true")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print({name: importlib.metadata.version(name) for name in ("scgacl-scvi", "scvi-tools", "torch", "numpy")})
    methods = {"SCGACL": ours} | ({} if arguments.without_scvi else {"scVI (defaults, 25 samples)": scvi_defaults})
    for name in arguments.sets:
        counts = variable_counts(os.path.join(arguments.data, f"{name}.h5ad"), arguments.genes)
        for seed in arguments.seeds:
            scvi.settings.seed = seed
            print(f"{name}, {counts.shape[0]} cells x {counts.shape[1]} genes, seed {seed}", flush=True)
            print(evaluate.molecular_cv(counts, methods, seed=seed).round(4).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
