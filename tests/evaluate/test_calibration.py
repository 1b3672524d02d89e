import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from scgacl_scvi.evaluate import coverage, randomised_pit, reliability


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_right_probabilities_are_reliable_and_wrong_ones_are_not(seed):
    rng = np.random.default_rng(seed)
    probability = rng.random(20_000)
    happened = rng.random(20_000) < probability
    right, wrong = reliability(probability, happened), reliability(probability**2, happened)
    assert right.attrs["error"] < 0.02 < 0.1 < wrong.attrs["error"]
    assert right.attrs["largest_gap"] < 0.06
    assert right.attrs["brier"] < wrong.attrs["brier"]
    assert right["n"].sum() == 20_000


def test_reliability_is_that_of_a_table_done_by_hand():
    table = reliability([0.1, 0.3, 0.8, 1.0], [False, True, True, True], n_bins=2)
    np.testing.assert_allclose(table["probability"], [0.2, 0.9])
    np.testing.assert_allclose(table["frequency"], [0.5, 1.0])
    assert table.attrs["error"] == pytest.approx((0.3 * 2 + 0.1 * 2) / 4)
    assert table.attrs["largest_gap"] == pytest.approx(0.3)
    assert table.attrs["brier"] == pytest.approx((0.01 + 0.49 + 0.04) / 4)


@pytest.mark.parametrize("mean", [0.05, 0.5, 20.0])
def test_ranks_of_right_predictions_are_uniform_and_cover(mean):
    rng = np.random.default_rng(0)
    observed, *samples = (rng.poisson(mean, (150, 100)) for _ in range(20))
    pit = randomised_pit(sparse.csr_matrix(observed), [sparse.csr_matrix(s) for s in samples], seed=1)
    assert np.abs(np.histogram(pit, 10, (0, 1))[0] / pit.size - 0.1).max() < 0.015
    assert coverage(pit, 0.9) == pytest.approx(0.9, abs=0.015)
    assert coverage(pit, 0.5) == pytest.approx(0.5, abs=0.02)


def test_too_narrow_predictions_do_not_cover():
    rng = np.random.default_rng(0)
    observed = rng.poisson(rng.gamma(1.0, 10.0, (100, 100)))
    pit = randomised_pit(observed, (rng.poisson(10.0, (100, 100)) for _ in range(20)), seed=0)
    assert coverage(pit, 0.9) < 0.6


def test_ranks_repeat_with_their_seed():
    observed, sample = np.zeros((3, 3)), np.zeros((3, 3))
    one, two = (randomised_pit(observed, [sample], seed=4) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, randomised_pit(observed, [sample], seed=5))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: reliability([0.1], [True, False]), "outcome"),
        (lambda: reliability([1.1], [True]), "probability"),
        (lambda: reliability([0.1], [True], n_bins=0), "n_bins"),
        (lambda: randomised_pit([[1]], []), "samples"),
        (lambda: randomised_pit([[1]], [[[1, 2]]]), "samples"),
        (lambda: coverage([0.5], 1.5), "level"),
        (lambda: coverage([1.5]), "pit"),
    ],
)
def test_what_is_wrong_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
