"""Small data for all tests; the seed is set anew for each."""

import os
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import scvi
import torch
from anndata import AnnData
from scipy import sparse

mpl.use("Agg")
torch.set_num_threads(1)  # the networks of the tests are too small for more


@pytest.fixture(autouse=True)
def _seed():
    before = scvi.settings._seed
    scvi.settings._seed = 0  # the public setter prints
    torch.set_num_threads(1)  # compiled code of other packages sets it to all of them
    yield
    scvi.settings._seed = before


@pytest.fixture
def data_folder() -> Path:
    """Folder of the evaluation data, which no test needs."""
    folder = os.environ.get("SCGACL_DATA")
    if not folder:
        pytest.skip("SCGACL_DATA is not set: real data are not at hand")
    return Path(folder)


def make_counts(n_cells: int = 60, n_genes: int = 30, n_types: int = 3, dropout: float = 0.0, seed: int = 0) -> AnnData:
    """Counts of a few distinct types; with ``dropout``, that share of the entries is set to zero."""
    rng = np.random.default_rng(seed)
    types = np.arange(n_cells) % n_types
    rates = rng.gamma(1.0, 4.0, (n_types, n_genes)) + 0.3
    counts = rng.poisson(rng.gamma(5.0, rates[types] / 5.0))
    truth = counts.copy()
    counts[rng.random(counts.shape) < dropout] = 0
    counts[counts.sum(1) == 0, 0] = 1
    adata = AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    adata.layers["truth"] = sparse.csr_matrix(truth.astype(np.float32))
    adata.obs["cell_type"] = np.array(["A", "B", "C", "D", "E"], dtype=object)[types]
    adata.obs["batch"] = np.where(rng.random(n_cells) < 0.5, "one", "two")
    adata.obs["size"] = counts.sum(1) / np.median(counts.sum(1))
    adata.obs["score"] = rng.normal(size=n_cells)
    return adata


@pytest.fixture
def adata() -> AnnData:
    return make_counts()
