"""Dropout probabilities: the published rule's speed, and the posterior's calibration beside it.

    python benchmarks/dropout.py speed                       # 20,000 genes x 10 labels x 10,000 cells, 90 % zeros
    python benchmarks/dropout.py calibration [--data FOLDER] [--seeds 0 1 2]
    python benchmarks/dropout.py coverage [--data FOLDER] [--seeds 0]   # 90 % intervals of held-out halves

FOLDER (or the environment variable SCGACL_DATA) holds sim_scgacl_groups3.h5ad and sim_autoclass_dataset1.h5ad; without
it only three settings of our simulator are used. ``speed`` times the fit and its peak memory, and on a stated subset
of genes the same EM written gene by gene and cell by cell; the ratio is one of times per fitted (label, gene).
``calibration`` counts the zeros of genes that were seen in a cell: of others the model says nothing. ``coverage``
splits the molecules of real and simulated counts in halves, fits one and draws the other: the share of randomised PIT
values inside the central 90 %.
"""

import argparse
import importlib.metadata
import logging
import os
import resource
import sys
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scvi
from scipy import sparse
from sklearn.metrics import roc_auc_score

from scgacl_scvi import SCGACL, datasets
from scgacl_scvi.dropout import FitStatus, fit_gamma_normal
from scgacl_scvi.evaluate import reliability

SIMULATED = {
    "splat, defaults": {"dropout_midpoint": 2.0, "dropout_shape": -1.0},
    "splat, strong dropout": {"dropout_midpoint": 4.0, "dropout_shape": -1.0},
    "splat, path, steep dropout": {
        "dropout_midpoint": 2.0,
        "dropout_shape": -3.0,
        "path": True,
        "group_proportions": [0.5, 0.5],
    },
}
FILES = ("sim_scgacl_groups3", "sim_autoclass_dataset1")


def simulated_counts(n_cells: int, n_genes: int, seed: int) -> sparse.csc_matrix:
    """Negative-binomial counts of genes with log-normal means, about nine entries in ten being zero."""
    rng = np.random.default_rng(seed)
    means = rng.lognormal(-3.1, 1.6, n_genes)
    columns = [rng.poisson(rng.gamma(2.0, mean / 2.0, n_cells)).astype(np.float32) for mean in means]
    return sparse.hstack([sparse.csc_matrix(column[:, None]) for column in columns], format="csc")


def speed(n_cells: int = 10_000, n_genes: int = 20_000, n_labels: int = 10, n_oracle: int = 20) -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests.dropout.test_oracle import oracle_em

    counts = simulated_counts(n_cells, n_genes, 0)
    labels = np.random.default_rng(1).integers(0, n_labels, n_cells)
    zeros = 1 - counts.nnz / np.prod(counts.shape)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start, cpu = time.perf_counter(), time.process_time()
    fit = fit_gamma_normal(counts, labels)
    probability = fit.zero_probability()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    fitted = int((fit.status == FitStatus.FITTED).sum())
    print(f"{n_cells:,} cells x {n_genes:,} genes x {n_labels} labels, {zeros:.1%} zeros; {fitted:,} mixtures fitted")
    print(f"fit: {wall:.1f} s ({cpu:.1f} CPU s); peak memory {after:.2f} GiB, of which {before:.2f} GiB before the fit")

    genes = np.linspace(0, n_genes - 1, n_oracle).astype(int)
    start, n_done, worst = time.process_time(), 0, 0.0
    for gene in genes:
        column = counts[:, [gene]].toarray().ravel().astype(float)
        for label in range(n_labels):
            values = column[labels == label]
            parameters, weights = oracle_em(values)
            if parameters is not None:
                n_done += 1
                worst = max(worst, abs(weights[values == 0][0] - probability[label, gene]))
    scalar = time.process_time() - start
    print(f"scalar EM: {n_done} mixtures of {n_oracle} genes in {scalar:.1f} CPU s; largest difference {worst:.1e}")
    print(f"per mixture: {cpu / fitted * 1e6:.0f} us against {scalar / n_done * 1e6:.0f} us", end="")
    print(f", {scalar / n_done / (cpu / fitted):.0f} times as fast (extrapolated per (label, gene))")


def simulations(folder: str | None, seed: int):
    if folder:
        for name in FILES:
            yield name, anndata.read_h5ad(os.path.join(folder, f"{name}.h5ad"))
    for i, (name, setting) in enumerate(SIMULATED.items()):
        setting = {"group_proportions": [0.4, 0.3, 0.2, 0.1], **setting}
        yield name, datasets.simulate_splat(n_cells=800, n_genes=1000, seed=1000 + 10 * seed + i, **setting)


def calibration(folder: str | None, seeds: list[int]) -> None:
    rows = []
    for seed in seeds:
        for name, adata in simulations(folder, seed):
            counts, truth = (x.toarray() if sparse.issparse(x) else x for x in (adata.X, adata.layers["truth"]))
            zero = (counts == 0) & (counts > 0).any(0)
            lost = (truth > 0)[zero]
            labels = adata.obs["cell_type" if "cell_type" in adata.obs else "group"].astype("category").cat.codes
            scvi.settings.seed = seed
            SCGACL.setup_anndata(adata)
            model = SCGACL(adata)
            model.train(enable_progress_bar=False)
            found = {
                "posterior": model.get_dropout_probability(return_type="numpy")[zero],
                "mixture, clusters": model.get_dropout_probability(method="mixture", return_type="numpy")[zero],
            }
            for rule, share in (("mixture, true labels", 1.0), ("mixture, true labels, 95 % rule", 0.95)):
                by_label = fit_gamma_normal(adata.X, labels.to_numpy(), max_zero_share=share).zero_probability()
                found[rule] = by_label[labels][zero]
            for method, probability in found.items():
                table = reliability(probability, lost)
                row = {"data": name, "method": method, "seed": seed, "auroc": roc_auc_score(lost, probability)}
                rows.append({**row, **table.attrs})
            print(pd.DataFrame(rows[-len(found) :]).round(3).to_string(index=False), flush=True)
    print(pd.DataFrame(rows).drop(columns="seed").groupby(["data", "method"], sort=False).mean().round(3).to_string())


COVERED = ("scmix_sc_celseq2_5cl", "pbmc3k", "paul15")


def coverage(folder: str | None, seeds: list[int]) -> None:
    from heldout import variable_counts

    from scgacl_scvi.evaluate import coverage as share_inside
    from scgacl_scvi.evaluate import randomised_pit

    simulated = {
        "splat, no dropout (nb)": lambda: datasets.simulate_splat(
            n_cells=800, n_genes=1000, group_proportions=[0.4, 0.3, 0.2, 0.1], dropout=False, library_loc=8, seed=21
        ),
        "demo (zinb)": lambda: datasets.demo(3),
    }
    for name in (*simulated, *(COVERED if folder else ())):
        for seed in seeds:
            path = os.path.join(folder or "", f"{name}.h5ad")
            counts = simulated[name]().X if name in simulated else variable_counts(path, 1000)
            seen, kept = datasets.thin(sparse.csr_matrix(counts), 0.5, seed)
            genes, cells = np.ravel(seen.sum(0)) > 0, np.ravel(seen.sum(1)) > 0
            seen, kept = seen[cells][:, genes], kept[cells][:, genes]
            scvi.settings._seed = seed
            half = anndata.AnnData(sparse.csr_matrix(seen, dtype=np.float32))
            SCGACL.setup_anndata(half)
            model = SCGACL(half)
            model.train(enable_progress_bar=False)
            dropout = model.module.gene_likelihood == "zinb"

            def draws(model=model, dropout=dropout, n=40):
                for i in range(n):
                    scvi.settings._seed = i
                    yield model.posterior_predictive_sample(dropout=dropout)

            pit = randomised_pit(kept, draws(), seed)
            print(f"{name}, seed {seed}: {half.n_obs} x {half.n_vars}, {model.module.gene_likelihood}, ", end="")
            print(f"{share_inside(pit):.3f} of the 90 % intervals cover", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "calibration", "coverage"))
    parser.add_argument("--data", default=os.environ.get("SCGACL_DATA"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print({name: importlib.metadata.version(name) for name in ("scgacl-scvi", "scvi-tools", "torch", "numpy", "scipy")})
    if arguments.what == "speed":
        speed()
    else:
        {"calibration": calibration, "coverage": coverage}[arguments.what](arguments.data, arguments.seeds)


if __name__ == "__main__":
    main()
