import numpy as np
import pytest

from scgacl_scvi.train._mixture_fit import fit_mixture


def _blobs(k=4, n=60, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 6, (k, 5))
    codes = np.repeat(np.arange(k), n)
    return centres[codes] + rng.normal(0, 0.5, (k * n, 5)), codes, centres


def test_bic_finds_the_number_of_separate_clusters():
    latent, _, _ = _blobs()
    start = fit_mixture(latent, n_clusters=None)
    assert len(start.means) == 4
    assert min(start.bic, key=start.bic.get) == 4


def test_labelled_components_sit_at_their_labels_cells():
    latent, codes, centres = _blobs()
    start = fit_mixture(latent, n_clusters=None, labels=codes, n_labels=4)
    np.testing.assert_allclose(start.means, centres, atol=0.3)
    np.testing.assert_allclose(start.weights, 0.25)


def test_partly_labelled_components_keep_their_label():
    latent, codes, centres = _blobs()
    labels = np.where(np.arange(len(codes)) % 10 == 0, codes, 4)
    start = fit_mixture(latent, n_clusters=None, labels=labels, n_labels=4)
    np.testing.assert_allclose(start.means, centres, atol=0.3)


def test_further_components_take_the_cells_no_label_explains():
    latent, codes, centres = _blobs()
    start = fit_mixture(latent, n_clusters=4, labels=codes, n_labels=3)  # code 3 is unlabelled
    np.testing.assert_allclose(start.means[3], centres[3], atol=0.5)


def test_a_label_with_one_cell_borrows_its_spread():
    latent, codes, _ = _blobs()
    codes = np.concatenate([codes, [4]])
    latent = np.vstack([latent, np.full(5, 20.0)])
    start = fit_mixture(latent, n_clusters=None, labels=codes, n_labels=5)
    np.testing.assert_allclose(start.means[4], 20.0)
    assert 0.1 < start.variances[4].mean() < 1.0


@pytest.mark.parametrize("n_clusters", [None, 7])
def test_fewer_distinct_cells_than_components_is_no_error(n_clusters):
    latent = np.repeat(np.random.default_rng(0).normal(size=(3, 4)), 5, axis=0)
    assert len(fit_mixture(latent, n_clusters=n_clusters).means) <= 3


def test_the_same_seed_gives_the_same_mixture():
    latent, _, _ = _blobs()
    a, b = (fit_mixture(latent, n_clusters=None, seed=3) for _ in range(2))
    np.testing.assert_array_equal(a.means, b.means)
