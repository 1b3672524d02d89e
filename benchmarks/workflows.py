"""Measure batches, labels, conditions, queries and read counts on real data, beside their controls.

    python benchmarks/workflows.py [batches] [labels] [strata] [query] [reads] --data FOLDER [--seeds 0 1 2]
        [--without-scvi] [--scib PYTHON]

FOLDER (or SCGACL_DATA) holds the data sets as h5ad. Without a name all five are run. Prints versions, a line for each
fit, and one table for each bar (means over seeds).

batches
    baron_pancreas_hvg1000, three donors as batches, 90 % of the molecules for training. Of the latent space: iLISI
    (batch mixing, 0 to 1), cLISI and silhouette (cell types, which no model sees), by scib-metrics on 90
    neighbours; PYTHON is an interpreter that has it. Of the imputed values: nats per held-out molecule over library
    x gene mean. scVI with its defaults and 25 samples; ours with and without batch_key.
labels
    sim_scgacl_groups3: Pearson and RMSE on the dropouts (policy "impute") with all labels, a tenth of them, none,
    and with a fifth of them replaced by another type's.
strata
    kang_pbmc_ctrl_stim, 2,000 variable genes: slope of imputed on raw log-fold changes
    (``evaluate.difference_kept``) with and without stratify_by="condition", for both policies.
query
    baron_pancreas_hvg1000: train on donors 1 and 2, map donor 3. Nats per held-out molecule of donor 3 over its own
    library x gene mean, before and after the training of the query, beside a model of all three; and whether any
    value of the reference changed.
reads
    The likelihood that "auto" chooses for read counts (deng2014_subset133) and UMI counts, and by what evidence.
"""

import argparse
import functools
import importlib.metadata
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
import torch

from scgacl_scvi import SCGACL, datasets, evaluate
from scgacl_scvi.evaluate import baselines

QUIET = {"enable_progress_bar": False}
_MIN_COUNTS = 10

SCIB = """
import json, sys, numpy, scib_metrics
from scib_metrics.nearest_neighbors import pynndescent
found = numpy.load(sys.argv[1])
near = pynndescent(found["z"], n_neighbors=90, random_state=0)
print(json.dumps({
    "iLISI": float(scib_metrics.ilisi_knn(near, found["batch"])),
    "cLISI": float(scib_metrics.clisi_knn(near, found["labels"])),
    "silhouette": float(scib_metrics.silhouette_label(found["z"], found["labels"])),
}))
"""


def say(**row) -> dict:
    print({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()}, flush=True)
    return row


def show(rows: list[dict], *by: str) -> None:
    table = pd.DataFrame(rows).drop(columns="seed").groupby(list(by), sort=False).mean(numeric_only=True)
    print(table.round(4).to_string(), flush=True)


def separation(z: np.ndarray, obs: pd.DataFrame, python: str) -> dict[str, float]:
    """Batch mixing and separation of cell types, by scib-metrics in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latent.npz"
        labels = {"batch": obs["sampleID"].to_numpy().astype(str), "labels": obs["cell_type"].to_numpy().astype(str)}
        np.savez(path, z=z, **labels)
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"JAX_PLATFORMS": "cpu"}
        done = subprocess.run([python, "-c", SCIB, str(path)], capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"--scib {python}: {done.stderr[-500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


@functools.cache
def pancreas(folder: str, seed: int) -> tuple[anndata.AnnData, np.ndarray]:
    """Training molecules (an AnnData) and held-out ones of the pancreas data."""
    adata = anndata.read_h5ad(os.path.join(folder, "baron_pancreas_hvg1000.h5ad"))
    train, test = datasets.thin(adata.X, 0.9, seed)
    cells = np.ravel(train.sum(1)) > _MIN_COUNTS
    found = anndata.AnnData(train[cells].astype(np.float32), obs=adata.obs[cells].astype(str), var=adata.var[[]])
    return found, test[cells]


def denoised(model: SCGACL) -> np.ndarray:
    return model.get_imputed_expression(policy="denoise", scale="counts", return_numpy=True)


def gain(rates: np.ndarray, train, test) -> float:
    return evaluate.poisson_gain(rates, test, baselines.gene_mean(train), depth_ratio=test.sum() / train.sum())


def fit(adata: anndata.AnnData, seed: int, **setup) -> SCGACL:
    scvi.settings.seed = seed
    torch.set_num_threads(1)
    SCGACL.setup_anndata(adata, **setup)
    model = SCGACL(adata)
    model.train(**QUIET)
    return model


@functools.cache
def of_three_donors(folder: str, seed: int, batch_key: str | None) -> tuple[np.ndarray, np.ndarray, float]:
    """Rates, latent means and seconds of our model of all donors."""
    train, _ = pancreas(folder, seed)
    start = time.perf_counter()
    model = fit(train.copy(), seed, batch_key=batch_key)
    seconds = time.perf_counter() - start
    return denoised(model), model.get_latent_representation(), seconds


def scvi_of_three_donors(folder: str, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    train = pancreas(folder, seed)[0].copy()
    scvi.settings.seed = seed
    torch.set_num_threads(1)
    start = time.perf_counter()
    scvi.model.SCVI.setup_anndata(train, batch_key="sampleID")
    model = scvi.model.SCVI(train)
    model.train(**QUIET)
    seconds = time.perf_counter() - start
    rates = model.get_normalized_expression(library_size="latent", n_samples=25, return_numpy=True)
    return rates, model.get_latent_representation(), seconds


def batches(options) -> None:
    methods = {
        "scgacl-scvi, batch_key": lambda seed: of_three_donors(options.data, seed, "sampleID"),
        "scgacl-scvi, no batch_key": lambda seed: of_three_donors(options.data, seed, None),
    }
    if not options.without_scvi:
        methods["scVI, batch_key"] = lambda seed: scvi_of_three_donors(options.data, seed)
    rows = []
    for name, method in methods.items():
        for seed in options.seeds:
            train, test = pancreas(options.data, seed)
            rates, z, seconds = method(seed)
            found = separation(z, train.obs, options.scib)
            rows.append(say(method=name, seed=seed, **found, gain=gain(rates, train.X, test), seconds=seconds))
    show(rows, "method")


def some_labels(kind: str, types: np.ndarray, seed: int) -> np.ndarray | None:
    rng = np.random.default_rng(1000 + seed)
    if kind == "none":
        return None
    labels = types.astype(object).copy()
    if kind == "a tenth":
        labels[rng.random(len(labels)) >= 0.1] = np.nan
    if kind == "a fifth wrong":
        for cell in np.flatnonzero(rng.random(len(labels)) < 0.2):
            labels[cell] = rng.choice(np.setdiff1d(types, types[cell]))
    return labels


def labels(options) -> None:
    adata = anndata.read_h5ad(os.path.join(options.data, "sim_scgacl_groups3.h5ad"))
    types, truth = adata.obs["cell_type"].astype(str).to_numpy(), adata.layers["truth"]
    rows = []
    for name, values in {
        "gene mean of non-zeros": baselines.gene_mean_impute(adata.X),
        "type mean of non-zeros (labels)": baselines.type_mean(adata.X, types),
    }.items():
        found = evaluate.recovery(values, truth, adata.X)
        rows.append(say(labels=name, seed=0, pearson=found.pearson_dropouts, rmse=found.rmse_dropouts))
    for kind in ("all", "a tenth", "none", "a fifth wrong"):
        for seed in options.seeds:
            cells = adata.copy()
            given = some_labels(kind, types, seed)
            if given is not None:
                cells.obs["label"] = given
            model = fit(cells, seed, labels_key=None if given is None else "label")
            found = evaluate.recovery(model.get_imputed_expression(return_numpy=True, layer_key=None), truth, adata.X)
            slip = np.nan if given is None else float(torch.sigmoid(model.module.prior.slip_logit))
            row = {"pearson": found.pearson_dropouts, "rmse": found.rmse_dropouts, "learnt share of wrong": slip}
            rows.append(say(labels=kind, seed=seed, **row))
    show(rows, "labels")


def strata(options) -> None:
    adata = anndata.read_h5ad(os.path.join(options.data, "kang_pbmc_ctrl_stim.h5ad"))
    sc.pp.filter_genes(adata, min_cells=10)
    sc.pp.highly_variable_genes(adata, flavor="seurat_v3", n_top_genes=2000)
    adata = adata[:, adata.var["highly_variable"]].copy()
    torch.set_num_threads(1)  # the choice of genes changes it
    alike = np.tile(np.asarray(evaluate.lognorm(adata.X).mean(0)).ravel(), (adata.n_obs, 1))
    control = evaluate.difference_kept(alike, evaluate.lognorm(adata.X), adata.obs["condition"])
    say(method="gene mean", difference_kept=control.slope)
    rows = []
    for policy in ("denoise", "impute"):
        for seed in options.seeds:
            scvi.settings.seed = seed
            table = evaluate.smoothing(adata, "condition", policy=policy, train=QUIET)
            rows += [say(policy=policy, seed=seed, **row) for row in table.drop(columns="cells").to_dict("records")]
    show(rows, "policy", "fit")


def query(options) -> None:
    rows = []
    for seed in options.seeds:
        train, test = pancreas(options.data, seed)
        third = (train.obs["sampleID"] == "3").to_numpy()
        known, new = train[~third].copy(), train[third].copy()
        reference = fit(known, seed, batch_key="sampleID")
        before = {key: value.numpy().tobytes() for key, value in reference.module.state_dict().items()}
        own = reference.get_imputed_expression(return_numpy=True, layer_key=None)
        mapped = SCGACL.load_query_data(new, reference)
        found = {"query, before training": denoised(mapped)}
        start = time.perf_counter()
        mapped.train(**QUIET)
        seconds = time.perf_counter() - start
        found["query"] = denoised(mapped)
        found["all three donors"] = of_three_donors(options.data, seed, "sampleID")[0][third]
        gains = {name: gain(rates, new.X, test[third]) for name, rates in found.items()}
        kept = mapped.get_imputed_expression(known.copy(), return_numpy=True, layer_key=None)
        same = np.array_equal(own, kept) and all(
            value.numpy().tobytes() == before[key]
            for key, value in mapped.module.state_dict().items()
            if value.numpy().nbytes == len(before[key])
        )
        for name, value in gains.items():
            share = value / gains["all three donors"]
            rows.append(say(model=name, seed=seed, gain=value, share=share, unchanged=same, seconds=seconds))
    show(rows, "model")


def reads(options) -> None:
    umi = ("pbmc3k", "pbmc_facs", "paul15", "baron_pancreas_hvg1000", "kang_pbmc_ctrl_stim", "scmix_sc_celseq2_5cl")
    for name, kind in {"deng2014_subset133": "reads", **dict.fromkeys(umi, "UMI")}.items():
        adata = anndata.read_h5ad(os.path.join(options.data, f"{name}.h5ad"))
        SCGACL.setup_anndata(adata)
        model = SCGACL(adata)
        choice = model.likelihood_choice_
        say(data=name, counts=kind, chosen=choice["gene_likelihood"], excess_zeros=choice["excess_zero_share"])
        print(" ", model._model_summary_string)


BARS = {"batches": batches, "labels": labels, "strata": strata, "query": query, "reads": reads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bars", nargs="*", choices=[*BARS, []], help="what to measure; none: all")
    parser.add_argument("--data", default=os.environ.get("SCGACL_DATA"), required="SCGACL_DATA" not in os.environ)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--without-scvi", action="store_true", help="batches: do not fit scVI (minutes)")
    parser.add_argument("--scib", default=sys.executable, metavar="PYTHON", help="an interpreter with scib-metrics")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    names = ("scgacl-scvi", "scvi-tools", "torch", "numpy", "anndata")
    print({name: importlib.metadata.version(name) for name in names}, f"seeds {options.seeds}", flush=True)
    for bar in options.bars or BARS:
        print(f"--- {bar}", flush=True)
        BARS[bar](options)


if __name__ == "__main__":
    main()
