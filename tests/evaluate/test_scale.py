import anndata as ad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from scgacl_scvi.evaluate import lognorm

count_matrices = arrays(
    np.int64, st.tuples(st.integers(1, 8), st.integers(1, 6)), elements=st.integers(0, 1000)
).filter(lambda x: x.any())


@settings(max_examples=60, deadline=None)
@given(count_matrices)
def test_every_cell_gets_the_median_library(counts):
    library = counts.sum(1)
    filled = library > 0
    back = np.expm1(lognorm(counts.astype(float))).sum(1)
    np.testing.assert_allclose(back[filled], np.median(library[filled]))
    assert (back[~filled] == 0).all()


def test_it_agrees_with_scanpy():
    import scanpy as sc

    counts = np.random.default_rng(0).poisson(1.5, (40, 30)).astype(np.float32)
    adata = ad.AnnData(counts.copy())
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    np.testing.assert_allclose(lognorm(counts), adata.X, rtol=1e-5)


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
def test_sparse_stays_sparse_and_agrees_with_dense(container):
    counts = np.random.default_rng(1).poisson(0.7, (20, 10))
    result = lognorm(container(counts))
    assert sparse.issparse(result)
    assert result.format == "csr"
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.toarray(), lognorm(counts), rtol=1e-6)


def test_duplicate_entries_of_a_sparse_matrix_are_one_count():
    twice = sparse.csr_matrix(([1.0, 2.0, 3.0], [0, 0, 1], [0, 3]), shape=(1, 2))
    np.testing.assert_allclose(lognorm(twice).toarray(), np.log1p([[3, 3]]))
    assert twice.nnz == 3


def test_the_input_is_left_alone():
    counts = sparse.random(30, 20, density=0.3, format="csr", rng=np.random.default_rng(2))
    before = counts.copy()
    result = lognorm(counts)
    result.data[:] = result.indices[:] = result.indptr[:] = 0
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(counts, part), getattr(before, part))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([[1.0, -1.0]], "counts: holds negative"),
        ([[1.0, np.nan]], "counts: holds NaN"),
        ([[0, 0]], "counts: all entries are zero"),
        ([1, 2], "counts: expected cells x genes"),
        ([["a"]], "counts: expected real numbers"),
        (np.empty((0, 3)), "counts: is empty"),
        (ad.AnnData(np.ones((2, 2))), "counts: got an AnnData; pass the matrix itself"),
    ],
)
def test_bad_input_is_named_with_a_remedy(counts, message):
    with pytest.raises(ValueError, match=message):
        lognorm(counts)
