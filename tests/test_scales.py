import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from scgacl_scvi import scales

counts = hnp.arrays(np.float64, (3, 4), elements=st.integers(0, 100_000).map(float))
libraries = hnp.arrays(np.float64, (3,), elements=st.floats(0.5, 1e6))
medians = st.floats(1.0, 1e6)
names = st.sampled_from(scales.SCALES)
kinds = {"array": lambda x: x, "csr": sparse.csr_matrix, "tensor": torch.tensor}


def dense(x) -> np.ndarray:
    return x.toarray() if sparse.issparse(x) else np.asarray(x)


def by_definition(x, library, median):
    share = x / library[:, None]
    return {
        "counts": x,
        "lognorm": np.log1p(share * median),
        "cp10k": share * 1e4,
        "log1p_cp10k": np.log1p(share * 1e4),
    }


@settings(max_examples=60, deadline=None)
@given(counts, libraries, medians, names, names, st.sampled_from(list(kinds)))
def test_every_conversion_is_that_of_the_definitions(x, library, median, source, target, kind):
    expected = by_definition(x, library, median)
    given_values = kinds[kind](expected[source])
    found = scales.convert(given_values, source, target, library=library, median_library=median)
    assert type(found) is type(given_values)
    np.testing.assert_allclose(dense(found), expected[target], rtol=1e-9, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(counts, libraries, medians, names, names)
def test_round_trips_give_back_the_counts_exactly(x, library, median, first, second):
    given_libraries = {"library": library, "median_library": median}
    values = scales.convert(x, "counts", first, **given_libraries)
    values = scales.convert(values, first, second, **given_libraries)
    np.testing.assert_array_equal(np.rint(scales.convert(values, second, "counts", **given_libraries)), x)


@settings(max_examples=20, deadline=None)
@given(counts, libraries, medians, names, names)
def test_zeros_stay_zeros_and_the_input_is_left_alone(x, library, median, source, target):
    x = x / 1e4  # e to the power of a count would overflow
    matrix = sparse.csr_matrix(x)
    before = matrix.copy()
    found = scales.convert(matrix, source, target, library=library, median_library=median)
    assert (dense(found)[x == 0] == 0).all()
    assert (matrix != before).nnz == 0
    if source == target:
        assert found is matrix


def test_single_precision_stays_single():
    x = np.ones((2, 3), dtype=np.float32)
    for kind in kinds.values():
        found = scales.convert(kind(x), "counts", "lognorm", library=[3.0, 3.0], median_library=2.0)
        assert dense(found).dtype == np.float32


def test_samples_are_converted_cell_by_cell():
    x = np.arange(12.0).reshape(2, 3, 2)
    found = scales.convert(x, "counts", "cp10k", library=[1.0, 2.0, 4.0])
    np.testing.assert_allclose(found[1], x[1] / np.array([[1.0], [2.0], [4.0]]) * 1e4)


@pytest.mark.parametrize(
    ("source", "target", "kwargs", "named"),
    [
        ("tpm", "counts", {}, "source"),
        ("counts", "tpm", {}, "target"),
        ("counts", "cp10k", {}, "library"),
        ("counts", "cp10k", {"library": [1.0]}, "library"),
        ("counts", "cp10k", {"library": [1.0, 0.0]}, "library"),
        ("lognorm", "cp10k", {}, "median_library"),
        ("cp10k", "lognorm", {"median_library": 0.0}, "median_library"),
    ],
)
def test_what_a_conversion_needs_is_asked_for_by_name(source, target, kwargs, named):
    with pytest.raises(ValueError, match=named):
        scales.convert(np.ones((2, 2)), source, target, **kwargs)


def test_only_another_scale_is_warned_of():
    scales.warn_other_scale(None, "lognorm", "layer")
    scales.warn_other_scale("lognorm", "lognorm", "layer")
    with pytest.warns(UserWarning, match="`layer` is on the scale 'cp10k'"):
        scales.warn_other_scale("cp10k", "lognorm", "layer")


def test_scales_need_no_torch():
    code = "import scgacl_scvi.scales, sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
