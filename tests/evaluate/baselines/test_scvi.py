import random

import numpy as np
import pytest
import torch
from scipy import sparse
from scvi import settings

from scgacl_scvi.evaluate.baselines import scvi_defaults, scvi_nb, scvi_nb_both


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.gamma(1.0, 3.0, (3, 30))[np.arange(90) % 3] * rng.lognormal(0, 0.5, (90, 1)))
    x[7] = 0
    return x


@pytest.fixture(scope="module")
def both(counts):
    return scvi_nb_both(counts, seed=0, max_epochs=60)


def test_rates_are_at_each_cells_own_depth(counts, both):
    np.testing.assert_allclose(both[0].sum(1), counts.sum(1), rtol=1e-3)
    assert both[0].dtype == both[1].dtype == np.float32


def test_a_cell_without_a_count_stays_at_zero(both):
    for rates in both:
        assert (rates[7] == 0).all()
        assert (np.delete(rates, 7, axis=0) > 0).all()


def test_both_results_are_those_of_single_calls(counts, both):
    sparse_counts = sparse.csr_matrix(counts)
    np.testing.assert_array_equal(scvi_nb(sparse_counts, seed=0, max_epochs=60), both[0])
    np.testing.assert_array_equal(scvi_nb(counts, seed=0, max_epochs=60, posterior_mean=True), both[1])


def test_the_posterior_mean_weighs_count_and_rate_with_one_dispersion_per_gene(counts, both):
    """From (x + theta) / (mu + theta) * mu follows theta = mu (x - m) / (m - mu), the same for all cells of a gene."""
    mu, mean = (np.delete(rates, 7, axis=0).astype(float) for rates in both)
    x = np.delete(counts, 7, axis=0)
    clear = np.abs(mean - mu) > 0.05 * mu
    theta = np.where(clear, mu * (x - mean) / np.where(clear, mean - mu, 1), np.nan)
    middle = np.nanmedian(theta, axis=0)
    assert (middle > 0).all()
    np.testing.assert_allclose(theta[clear], np.broadcast_to(middle, theta.shape)[clear], rtol=1e-2)


def test_the_seed_decides_and_the_users_generators_are_left_alone(counts):
    settings._seed = 5
    state = np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()
    first = scvi_defaults(counts, seed=1, max_epochs=2)
    np.testing.assert_array_equal(np.random.get_state()[1], state[0])
    assert torch.equal(torch.get_rng_state(), state[1])
    assert random.getstate() == state[2]
    assert settings.seed == 5
    np.random.seed(3)
    torch.manual_seed(3)
    np.testing.assert_array_equal(scvi_defaults(counts, seed=1, max_epochs=2), first)
    assert not np.array_equal(scvi_defaults(counts, max_epochs=2), first)


def test_scvi_settings_give_the_seed_where_none_is_passed(counts):
    settings._seed = 4
    np.testing.assert_array_equal(scvi_defaults(counts, max_epochs=1), scvi_defaults(counts, max_epochs=1, seed=4))


def test_nothing_is_printed_and_no_file_left(counts, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scvi_defaults(counts, max_epochs=1, seed=0)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", [scvi_defaults, scvi_nb])
def test_bad_counts_are_named_with_a_remedy(method):
    with pytest.raises(ValueError, match="counts: holds negative values; pass counts"):
        method([[-1.0, 2.0]])
    with pytest.raises(ValueError, match="counts: all entries are zero.*; pass counts above zero"):
        method([[0, 0], [0, 0]])
