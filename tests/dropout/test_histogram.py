import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy import sparse

from scgacl_scvi.dropout._histogram import _sort, iter_histograms

quick = settings(deadline=None, max_examples=50, database=None)
values = st.one_of(
    st.integers(0, 4).map(float), st.integers(0, 2**40).map(float), st.floats(0, 1e6, allow_subnormal=False)
)


@st.composite
def labelled_matrices(draw):
    n_cells, n_genes, n_labels = draw(st.integers(0, 12)), draw(st.integers(0, 6)), draw(st.integers(1, 4))
    x = draw(arrays(np.float64, (n_cells, n_genes), elements=values))
    return x, draw(arrays(np.intp, n_cells, elements=st.integers(0, n_labels - 1))), n_labels


@quick
@given(labelled_matrices(), st.sampled_from([1, 7, 1000]))
def test_histogram_counts_every_cell_once(case, block_entries):
    x, labels, n_labels = case
    seen = 0
    for genes, histogram in iter_histograms(sparse.csr_matrix(x), labels, n_labels, block_entries):
        assert genes.start == seen
        seen = genes.stop
        per_pair = histogram.total(histogram.weights).reshape(-1, n_labels)
        np.testing.assert_array_equal(per_pair, np.tile(np.bincount(labels, minlength=n_labels), (len(per_pair), 1)))
        for pair in range(histogram.indptr.size - 1):
            entries = slice(*histogram.indptr[pair : pair + 2])
            cells = x[labels == pair % n_labels, genes.start + pair // n_labels]
            expected, counts = np.unique(np.append(cells, 0), return_counts=True)
            np.testing.assert_array_equal(histogram.values[entries], expected)
            np.testing.assert_array_equal(histogram.weights[entries], counts - (expected == 0))
    assert seen == x.shape[1]


@quick
@given(arrays(np.float64, st.integers(0, 40), elements=st.integers(1, 2**24).map(float)), st.randoms())
def test_packed_and_general_sort_agree(value, random):
    pair = np.array([random.randrange(5) for _ in value], dtype=np.intp)
    order = np.lexsort((value, pair))
    packed = _sort(pair, value)
    np.testing.assert_array_equal(packed[0], pair[order])
    np.testing.assert_array_equal(packed[1], value[order])
    # One value that float32 cannot hold sends all the others the general way.
    general = _sort(np.append(pair, 9), np.append(value, 1 / 3))
    np.testing.assert_array_equal(general[0][:-1], packed[0])
    np.testing.assert_array_equal(general[1][:-1], packed[1])


def test_duplicate_and_explicit_zero_entries_count_as_their_sum():
    x = sparse.csc_matrix(([1.0, 2.0, 0.0, 5.0], [0, 0, 1, 2], [0, 3, 4]), shape=(3, 2))
    before = x.data.copy()
    ((_, histogram),) = iter_histograms(x, np.zeros(3, dtype=np.intp), 1)
    np.testing.assert_array_equal(histogram.values, [0, 3, 0, 5])
    np.testing.assert_array_equal(histogram.weights, [2, 1, 2, 1])
    np.testing.assert_array_equal(x.data, before)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_values_that_are_no_expression_are_refused(bad, form):
    with pytest.raises(ValueError, match="finite values >= 0"):
        list(iter_histograms(form([[1.0, bad], [0.0, 2.0]]), np.zeros(2, dtype=np.intp), 1))
