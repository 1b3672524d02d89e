"""One fit in a process of its own: ``python -m _speed.worker JOB`` prints its measures as the last line, in JSON.

Keys of a job: ``method`` ("ours", "plain", "paper", "paper plain", "scvi"), ``data`` ("CELLSxGENES" for simulated
counts, else a file and ``genes``), ``likelihood``, ``batch_size``, ``train`` (arguments of train), ``widths``,
``accelerator``; what to do besides: ``heldout`` (molecules taken out and predicted), ``impute``. With ``out`` instead:
the published procedure on the plain path, from a file to a file.
"""

import json
import logging
import os
import sys
import time
from contextlib import nullcontext
from typing import Any

import numpy as np
from scipy import sparse

HELDOUT_SEED = 0


def counts_of(job: dict[str, Any]) -> sparse.csr_matrix:
    """Counts, cells x genes: simulated, or the most variable genes of a file (scanpy's default flavour)."""
    if not job["data"].endswith(".h5ad"):
        from .data import simulate

        return simulate(*map(int, job["data"].split("x")))
    import anndata
    import scanpy as sc

    adata = anndata.read_h5ad(job["data"])
    counts = sparse.csr_matrix(adata.X, dtype=np.float32)
    if job.get("genes") and job["genes"] < adata.n_vars:
        sc.pp.filter_genes(adata, min_cells=3)
        normal = adata.copy()
        sc.pp.normalize_total(normal)
        sc.pp.log1p(normal)
        sc.pp.highly_variable_genes(normal, n_top_genes=job["genes"])
        counts = sparse.csr_matrix(adata[:, normal.var["highly_variable"]].X, dtype=np.float32)
    return counts[np.ravel(counts.sum(1)) > 10]


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Measures of one fit."""
    if "out" in job:
        return _end_to_end(job)
    counts = counts_of(job)
    import anndata
    import scvi
    import torch

    from scgacl_scvi.evaluate import measured

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "scvi"):
        logging.getLogger(name).setLevel(logging.ERROR)
    scvi.settings.seed = job.get("seed", 0)
    test = None
    if job.get("heldout"):
        from scgacl_scvi.datasets import thin

        counts, test = thin(counts, 0.9, seed=HELDOUT_SEED)
        seen = np.ravel(counts.sum(0)) > 0
        counts, test = counts[:, seen], test[:, seen]
    data_bytes = sum(array.nbytes for array in (counts.data, counts.indices, counts.indptr))
    found = {"shape": list(counts.shape), "nnz": int(counts.nnz), "data_bytes": data_bytes}
    adata = anndata.AnnData(counts)
    make, path = _method(job)

    def stage(name, function):
        start = resident_bytes()
        result, usage = measured(function)
        found[name] = {"seconds": usage.seconds, "cpu_seconds": usage.cpu_seconds, "added_bytes": usage.peak_bytes}
        found[name]["peak_bytes"] = start + usage.peak_bytes
        return result

    found["start_bytes"] = resident_bytes()
    model = stage("set_up", lambda: make(adata))
    epochs = epoch_timer()
    train = {"batch_size": job.get("batch_size"), "accelerator": job.get("accelerator", "cpu"), **job.get("train", {})}
    train = {key: value for key, value in train.items() if value is not None}
    with path():
        stage("train", lambda: model.train(enable_progress_bar=False, callbacks=[epochs], **train))
    found["epochs"] = epochs.seconds
    found["epochs_cpu"] = epochs.cpu_seconds
    found["phases"] = getattr(model, "phases_", None)
    if job.get("impute"):
        result = stage("impute", lambda: model.get_imputed_expression(return_type="csr", layer_key=None))
        found["impute"]["result_bytes"] = sum(a.nbytes for a in (result.data, result.indices, result.indptr))
    if test is not None:
        found["heldout"] = heldout(model, job, counts, test)
    return found


def _end_to_end(job: dict[str, Any]) -> dict[str, Any]:
    """Read, train, impute and write."""
    import anndata
    import scvi

    from scgacl_scvi import SCGACL

    from .plain import plain_path

    scvi.settings.seed = job.get("seed", 0)
    adata = anndata.read_h5ad(job["data"])
    SCGACL.setup_anndata(adata, labels_key=job["labels_key"])
    model = SCGACL(adata, preset="paper")
    with plain_path():
        model.train(enable_progress_bar=False)
        model.get_imputed_expression()
    adata.write_h5ad(job["out"])
    return {}


def resident_bytes() -> int:
    """Resident memory of this process now."""
    import psutil

    return psutil.Process().memory_info().rss


def heldout(model, job: dict[str, Any], counts, test) -> dict[str, float]:
    """Poisson loss of held-out molecules (as documented in ``evaluate.poisson_loss``), and that of the gene's mean."""
    from scgacl_scvi.evaluate import poisson_loss

    if job["method"] == "scvi":
        rates = model.get_normalized_expression(library_size="latent", n_samples=25, return_numpy=True)
    else:
        rates = model.get_imputed_expression(policy="denoise", scale="counts", return_numpy=True, layer_key=None)
    ratio = float(test.sum() / counts.sum())
    library, mean = np.ravel(counts.sum(1)), np.ravel(counts.sum(0)) / counts.sum()
    return {
        "loss": poisson_loss(rates, test, depth_ratio=ratio),
        "gene_mean": poisson_loss(np.outer(library, mean), test, depth_ratio=ratio),
        "per_molecule": float(counts.shape[0] * counts.shape[1] / test.sum()),
    }


def _method(job: dict[str, Any]):
    """How to set up the model, and the context to train it in."""
    method, likelihood = job["method"], job.get("likelihood")
    if method == "scvi":
        from scvi.model import SCVI

        arguments = {"n_layers": 2, "n_hidden": job["widths"]} if job.get("widths") else {}
        arguments |= {"gene_likelihood": likelihood} if likelihood else {}

        def make(adata):
            SCVI.setup_anndata(adata)
            return SCVI(adata, **arguments)

        return make, nullcontext
    from scgacl_scvi import SCGACL

    from .plain import plain_path

    arguments = {"preset": "paper", "n_clusters": 4} if method.startswith("paper") else {}
    arguments |= {"gene_likelihood": likelihood} if likelihood else {}
    arguments |= {"n_hidden": job["widths"]} if job.get("widths") else {}

    def make(adata):
        SCGACL.setup_anndata(adata)
        return SCGACL(adata, **arguments)

    return make, plain_path if method.endswith("plain") else nullcontext


def epoch_timer(device: str = "cpu"):
    """Callback that takes the time of each epoch."""
    import torch
    from lightning.pytorch import Callback

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    class EpochTimer(Callback):
        """Seconds of each epoch, on the wall and of the processors."""

        def __init__(self):
            self.seconds, self.cpu_seconds = [], []

        def on_train_epoch_start(self, *_) -> None:
            self._start = time.perf_counter(), time.process_time()

        def on_train_epoch_end(self, *_) -> None:
            wait()
            self.seconds.append(time.perf_counter() - self._start[0])
            self.cpu_seconds.append(time.process_time() - self._start[1])

    return EpochTimer()


if __name__ == "__main__":
    print("\n" + json.dumps(run(json.loads(sys.argv[1]))))
