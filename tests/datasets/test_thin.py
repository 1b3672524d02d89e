"""Thinning keeps every molecule, once."""

import sys
from types import SimpleNamespace

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scgacl_scvi._keys import named_layers
from scgacl_scvi.datasets import _thin, downsample, simulate_splat, thin

dtypes = st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8, np.uint64, np.float16])
shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=12)
counts = dtypes.flatmap(lambda dtype: hnp.arrays(dtype, shapes, elements=st.integers(0, 200)))
formats = st.sampled_from(["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
fractions = st.floats(0, 1)
seeds = st.integers(0, 2**32 - 1)


def dense(x):
    return x.toarray() if sp.issparse(x) else x


@settings(deadline=None, max_examples=60)
@given(counts, fractions, seeds)
def test_dense_parts_are_counts_and_sum_exactly(x, fraction, seed):
    before = x.copy()
    kept, held_out = thin(x, fraction, seed)
    np.testing.assert_array_equal(x, before)
    for part in (kept, held_out):
        assert part.dtype == x.dtype
        assert part.shape == x.shape
        assert (part >= 0).all()
        assert (part == np.floor(part)).all()
        assert (part <= x).all()
    np.testing.assert_array_equal(kept + held_out, x)


@settings(deadline=None, max_examples=60)
@given(counts.filter(lambda x: x.dtype != np.float16), formats, st.booleans(), fractions, seeds)
def test_sparse_parts_are_those_of_the_dense_counts(x, format_, as_array, fraction, seed):
    stored = (sp.csr_array(x) if as_array else sp.csr_matrix(x)).asformat(format_)
    kept, held_out = thin(stored, fraction, seed)
    np.testing.assert_array_equal(stored.toarray(), x)
    for part, same in zip((kept, held_out), thin(x, fraction, seed), strict=True):
        assert isinstance(part, sp.csr_array if as_array else sp.csr_matrix)
        assert part.has_canonical_format
        assert (part.data > 0).all()
        assert part.dtype == x.dtype
        np.testing.assert_array_equal(part.toarray(), same)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_each_molecule_is_kept_with_the_stated_probability(fraction):
    for n in (1, 7, 300):
        kept = thin(np.full((200, 100), n), fraction, seed=0)[0]
        error = np.sqrt(n * fraction * (1 - fraction) / kept.size)
        assert kept.mean() == pytest.approx(n * fraction, abs=4 * error)
        assert kept.var() == pytest.approx(n * fraction * (1 - fraction), rel=0.05)


def test_parts_of_poisson_counts_are_independent():
    x = np.random.default_rng(0).poisson(5, 100_000)
    kept, held_out = thin(x, 0.7, seed=1)
    assert abs(np.corrcoef(kept, held_out)[0, 1]) < 4 / np.sqrt(x.size)
    for part, mean in ((kept, 3.5), (held_out, 1.5)):
        assert part.mean() == pytest.approx(mean, abs=0.03)
        assert part.var() == pytest.approx(mean, rel=0.03)


def test_all_or_nothing_at_the_ends():
    x = sp.csr_matrix([[3, 0], [1, 2]])
    assert thin(x, 0, seed=0)[0].nnz == 0
    assert thin(x, 1, seed=0)[1].nnz == 0


def test_large_counts_stay_exact():
    x = np.array([[2**24, 2**24 - 1]], dtype=np.float32)
    kept, held_out = thin(x, 0.9, seed=0)
    assert int(kept[0, 0]) + int(held_out[0, 0]) == 2**24
    assert kept[0, 0] / 2**24 == pytest.approx(0.9, abs=1e-3)


def test_duplicate_and_zero_entries_count_as_their_sum():
    messy = sp.csr_matrix((np.array([2.0, 3, 0, 4]), np.array([1, 1, 0, 2]), np.array([0, 3, 4])), shape=(2, 3))
    data = messy.data.copy()
    kept, held_out = thin(messy, 0.5, seed=0)
    np.testing.assert_array_equal((kept + held_out).toarray(), [[0, 5, 0], [0, 0, 4]])
    np.testing.assert_array_equal(messy.data, data)


def test_blocks_do_not_change_the_result(monkeypatch):
    x = np.random.default_rng(0).poisson(20, (50, 40))
    whole = thin(x, 0.4, seed=3)[0]
    monkeypatch.setattr(_thin, "_BLOCK", 7)
    np.testing.assert_array_equal(thin(x, 0.4, seed=3)[0], whole)


def test_a_seed_repeats_and_another_differs(monkeypatch):
    x = np.full((30, 30), 10)
    first = thin(x, 0.5, seed=0)[0]
    np.testing.assert_array_equal(thin(x, 0.5, seed=0)[0], first)
    assert (thin(x, 0.5, seed=1)[0] != first).any()
    monkeypatch.setitem(sys.modules, "scvi", SimpleNamespace(settings=SimpleNamespace(seed=None)))
    np.testing.assert_array_equal(thin(x, 0.5)[0], first)


@pytest.mark.parametrize("wrap", [np.array, sp.csr_matrix], ids=["dense", "sparse"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 0.5]], "non-negative integers.*round"),
        ([[1.0, -1.0]], "non-negative integers"),
        ([[1.0, np.nan]], "non-negative integers"),
        ([[1.0, np.inf]], "non-negative integers"),
        ([[True, False]], "numeric array.*bool"),
        (np.array([[2**25]], dtype=np.float32), "exact in float32.*int64"),
        (np.array([[2**63 + 5]], dtype=np.uint64), "exact in uint64"),
    ],
)
def test_what_is_not_a_count_is_refused(wrap, values, message):
    with pytest.raises(ValueError, match=message):
        thin(wrap(values), 0.5, seed=0)


def test_other_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match="numeric array"):
        thin(anndata.AnnData(np.ones((2, 2), dtype=np.float32)), 0.5, seed=0)
    for fraction in (-0.1, 1.1, np.nan, None, "most"):
        with pytest.raises(ValueError, match="fraction must be a number from 0 to 1"):
            thin(np.ones((2, 2)), fraction, seed=0)
    with pytest.raises(ValueError, match="seed must be"):
        thin(np.ones((2, 2)), 0.5, seed=-3)


@pytest.fixture
def adata():
    adata = simulate_splat(40, 60, seed=0)
    adata.layers["other"] = adata.X.copy()
    adata.layers["other"].data += 1
    return adata


@pytest.mark.parametrize("layer", [None, "other", "truth"])
def test_downsample_keeps_the_original_as_truth_and_changes_nothing_given(adata, layer):
    source = adata.X if layer is None else adata.layers[layer]
    before = {"X": adata.X.copy(), **{key: adata.layers[key].copy() for key in named_layers(adata)}}
    result = downsample(adata, 0.3, layer=layer, seed=5)
    np.testing.assert_array_equal(result.X.toarray(), thin(source, 0.3, seed=5)[0].toarray())
    np.testing.assert_array_equal(result.layers["truth"].toarray(), source.toarray())
    assert named_layers(result) == ["other", "truth"]  # the mask of the simulation would be wrong now
    assert result.obs.equals(adata.obs)
    result.layers["truth"].data[:] = 0
    result.layers["other"].data[:] = 0
    for key, value in before.items():
        assert ((adata.X if key == "X" else adata.layers[key]) != value).nnz == 0


def test_downsample_works_on_dense_counts_views_backed_files_and_layers_alone(adata, tmp_path):
    expected = downsample(adata[:20].copy(), 0.5, seed=0).X.toarray()
    densely = adata[:20].copy()
    densely.X = densely.X.toarray()
    np.testing.assert_array_equal(downsample(densely, 0.5, seed=0).X, expected)
    np.testing.assert_array_equal(downsample(adata[:20], 0.5, seed=0).X.toarray(), expected)
    adata[:20].copy().write_h5ad(tmp_path / "backed.h5ad")
    backed = anndata.read_h5ad(tmp_path / "backed.h5ad", backed="r")
    np.testing.assert_array_equal(downsample(backed, 0.5, seed=0).X.toarray(), expected)
    backed.file.close()
    no_x = anndata.AnnData(layers={"counts": adata.X[:20]}, obs=adata.obs[:20], var=adata.var)
    np.testing.assert_array_equal(downsample(no_x, 0.5, layer="counts", seed=0).X.toarray(), expected)


def test_downsample_refuses_missing_counts_by_name(adata):
    with pytest.raises(ValueError, match="layer='raw' is not in adata.layers; choose one of"):
        downsample(adata, 0.5, layer="raw")
    with pytest.raises(ValueError, match="adata.X, which is empty"):
        downsample(anndata.AnnData(obs=adata.obs), 0.5)
    with pytest.raises(ValueError, match="fraction must be"):
        downsample(adata, 2)
    adata.X.data[0] = 0.5
    with pytest.raises(ValueError, match="non-negative integers"):
        downsample(adata, 0.5, seed=0)
