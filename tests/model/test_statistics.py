"""What a model takes from the data when it is made: the same for any format, without a second copy."""

import tracemalloc

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from scgacl_scvi import SCGACL
from scgacl_scvi.model._likelihood_choice import choose_likelihood
from scgacl_scvi.model._statistics import data_statistics


def _counts(n: int, genes: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(0.3, 1.0, (n, genes)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
def test_statistics_are_those_of_the_dense_matrix_across_blocks_of_cells(dtype):
    x = _counts(17000, 300).astype(dtype)  # three blocks
    library = np.maximum(x.sum(1), 1).astype(float)
    scaled = x * (np.median(library) / library)[:, None]
    for kind in (sparse.csr_matrix, sparse.csr_array, np.asarray):
        median, means, largest = data_statistics(kind(x), library, "nb", "counts")
        assert median == np.median(library)
        np.testing.assert_allclose(means, scaled.mean(0), rtol=1e-4)
        assert largest == pytest.approx(scaled.max(), rel=1e-6)


def test_stored_zeros_are_zeros_for_the_choice_of_the_likelihood():
    x = _counts(9000, 300)  # two blocks
    stored = sparse.csr_matrix(x + 1)
    stored.data -= 1
    assert stored.nnz == x.size
    library = np.maximum(x.sum(1), 1)
    assert choose_likelihood(stored, library) == choose_likelihood(sparse.csr_matrix(x), library)
    assert choose_likelihood(x, library) == choose_likelihood(sparse.csr_matrix(x), library)


def test_making_a_model_takes_no_second_copy_of_the_counts():
    x = sparse.random(40_000, 400, 0.1, format="csr", dtype=np.float32, random_state=0)
    x.data[:] = np.random.default_rng(0).poisson(1.0, x.nnz) + 1
    adata = AnnData(x)
    SCGACL.setup_anndata(adata)
    SCGACL(adata)  # what the first model imports and keeps
    tracemalloc.start()
    try:
        SCGACL(adata)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.75 * (x.data.nbytes + x.indices.nbytes)  # a block of cells at a time, and the model
