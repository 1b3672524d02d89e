import subprocess
import sys
from dataclasses import FrozenInstanceError, fields

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy import sparse

from scgacl_scvi.dropout import FitStatus, GammaNormalFit, fit_gamma_normal
from scgacl_scvi.dropout._gamma_normal import _expectation, _maximisation
from scgacl_scvi.dropout._histogram import Histogram

quick = settings(deadline=None, max_examples=40, database=None)
counts = st.one_of(st.just(0), st.integers(0, 5), st.integers(0, 100_000))
values = st.one_of(counts.map(float), st.floats(0, 1e300, allow_subnormal=False))


@st.composite
def labelled(draw, elements):
    n_cells, n_genes = draw(st.integers(1, 25)), draw(st.integers(1, 5))
    x = draw(arrays(np.float64, (n_cells, n_genes), elements=elements))
    return x, draw(arrays(np.intp, n_cells, elements=st.integers(0, 2)))


def dropout_counts(n_cells=120, n_genes=30, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.negative_binomial(2, 2 / (2 + rng.lognormal(1, 1, n_genes)), (n_cells, n_genes))
    return x * (rng.random(x.shape) > 0.4), rng.integers(0, 3, n_cells)


def assert_same_fit(first, second, genes=slice(None), **tolerance):
    for field in fields(GammaNormalFit):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if field.name != "offset":
            np.testing.assert_allclose(a[:, genes], b[:, genes], **({"rtol": 0} | tolerance), err_msg=field.name)


@quick
@given(labelled(values))
def test_probabilities_lie_between_0_and_1_whatever_the_values(case):
    x, labels = case
    fit = fit_gamma_normal(x, labels, n_labels=3)
    probability = fit.zero_probability()
    assert probability.shape == fit.status.shape == (3, x.shape[1])
    assert ((probability >= 0) & (probability <= 1)).all()
    fitted = fit.status == FitStatus.FITTED
    assert (probability[~fitted] == 0).all()
    assert (fit.n_iter[~fitted] == 0).all()
    for array in (fit.rate, fit.alpha, fit.beta, fit.mu, fit.sigma, fit.log10_likelihood):
        np.testing.assert_array_equal(np.isfinite(array), fitted)


@quick
@given(labelled(values), st.randoms())
def test_order_of_cells_changes_nothing(case, random):
    x, labels = case
    order = random.sample(range(len(x)), len(x))
    assert_same_fit(fit_gamma_normal(x, labels, n_labels=3), fit_gamma_normal(x[order], labels[order], n_labels=3))


@quick
@given(labelled(counts.map(float)), st.permutations([0, 1, 2]))
def test_names_of_labels_change_nothing(case, new):
    x, labels = case
    new = np.array(new)
    renamed = fit_gamma_normal(x, new[labels], n_labels=3)
    original = fit_gamma_normal(x, labels, n_labels=3)
    np.testing.assert_array_equal(renamed.zero_probability()[new], original.zero_probability())
    np.testing.assert_array_equal(renamed.n_iter[new], original.n_iter)


@quick
@given(labelled(values))
def test_dense_csr_and_csc_give_one_answer(case):
    x, labels = case
    dense = fit_gamma_normal(x, labels)
    for form in (sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix, sparse.csr_array, sparse.csc_array):
        assert_same_fit(dense, fit_gamma_normal(form(x), labels))
        mask = dense.dropout_mask(form(x), labels)
        np.testing.assert_array_equal(mask.toarray(), dense.dropout_mask(x, labels).toarray())


def test_storage_type_changes_nothing():
    x, labels = dropout_counts()
    expected = fit_gamma_normal(x, labels)
    for dtype in (np.int32, np.uint16, np.float32, np.float64):
        assert_same_fit(expected, fit_gamma_normal(sparse.csr_matrix(x.astype(dtype)), labels))


def test_counts_are_fitted_alike_beside_values_that_are_no_integers():
    x, labels = dropout_counts()
    mixed = x.astype(float)
    mixed[0, 0] += 1 / 3
    assert_same_fit(fit_gamma_normal(x, labels), fit_gamma_normal(mixed, labels), genes=slice(1, None))


def test_values_next_to_integers_are_fitted_as_the_integers():
    x, labels = dropout_counts()
    jittered = x * (1 + 1e-12 * np.random.default_rng(0).random(x.shape))
    assert_same_fit(fit_gamma_normal(x, labels), fit_gamma_normal(jittered, labels), rtol=1e-8, atol=1e-12)


def test_blocks_of_genes_leave_no_seam(monkeypatch):
    x, labels = dropout_counts()
    whole = fit_gamma_normal(x, labels)
    for block in (1, 200):
        monkeypatch.setattr("scgacl_scvi.dropout._histogram.iter_histograms.__defaults__", (block,))
        assert_same_fit(whole, fit_gamma_normal(sparse.csr_matrix(x), labels))


def test_each_pair_is_fitted_as_if_alone():
    x, labels = dropout_counts(n_genes=6)
    together = fit_gamma_normal(x, labels)
    for label in range(3):
        for gene in range(6):
            alone = fit_gamma_normal(x[labels == label, gene : gene + 1])
            for name in ("rate", "alpha", "beta", "mu", "sigma", "n_iter", "log10_likelihood"):
                assert getattr(alone, name)[0, 0] == pytest.approx(getattr(together, name)[label, gene], rel=1e-12)


def test_a_mixture_that_was_drawn_is_found_again():
    rng = np.random.default_rng(3)
    n = 20_000
    gamma = rng.random(n) < 0.3
    v = np.where(gamma, rng.gamma(4.0, 1 / 8.0, n), rng.normal(4.0, 0.5, n))
    x = np.maximum(np.exp(v) - 1.01, 0)[:, None]
    fit = fit_gamma_normal(x, tolerance=1e-8)
    assert fit.rate[0, 0] == pytest.approx(0.3, abs=0.01)
    assert fit.mu[0, 0] == pytest.approx(4.0, abs=0.02)
    assert fit.sigma[0, 0] == pytest.approx(0.5, abs=0.02)


def test_updates_end_at_their_limit():
    x, labels = dropout_counts()
    assert fit_gamma_normal(x, labels, tolerance=-1).n_iter.max() == 100
    assert fit_gamma_normal(x, labels, tolerance=-1, max_iter=3).n_iter.max() == 3


@pytest.mark.parametrize("vanished", [0.0, 5e-324, 1e-250])
def test_a_component_without_cells_keeps_its_parameters(vanished):
    histogram = Histogram(np.array([0.01, 1.0, 2.0]), np.array([4.0, 1.0, 1.0]), np.array([0, 3]))
    before = np.array([[0.5], [1.5], [1.0], [1.2], [0.3]])
    none, all_cells = np.full(3, vanished), histogram.weights
    no_gamma = _maximisation(histogram, np.log(histogram.values), none, all_cells, before)
    no_normal = _maximisation(histogram, np.log(histogram.values), all_cells, none, before)
    np.testing.assert_array_equal(no_gamma[[1, 2]], before[[1, 2]])
    np.testing.assert_array_equal(no_normal[[3, 4]], before[[3, 4]])
    assert no_gamma[0, 0] == pytest.approx(0, abs=1e-200)
    assert no_normal[0, 0] == 1
    for parameters in (no_gamma, no_normal):
        assert np.isfinite(_expectation(histogram, np.log(histogram.values), parameters)[2]).all()


def test_updates_never_lower_the_likelihood():
    x, labels = dropout_counts()
    likelihoods = [fit_gamma_normal(x, labels, max_iter=n, tolerance=0).log10_likelihood for n in (1, 2, 4, 8, 16)]
    # The cap on alpha is a rule, not a maximum: pairs that meet it may lose a little.
    free = (fit_gamma_normal(x, labels, max_iter=16, tolerance=0).alpha < 20) & np.isfinite(likelihoods[0])
    for earlier, later in zip(likelihoods, likelihoods[1:], strict=False):
        assert (later[free] >= earlier[free] - 1e-9).all()


def test_zeros_apart_from_a_high_normal_are_dropouts_and_low_ones_are_not():
    rng = np.random.default_rng(0)
    high = np.where(rng.random(300) < 0.5, 0, rng.poisson(100, 300))
    low = rng.poisson(1.0, 300)
    probability = fit_gamma_normal(np.stack([high, low], axis=1)).zero_probability()[0]
    assert probability[0] > 0.99
    mask = fit_gamma_normal(high[:, None]).dropout_mask(high[:, None])
    np.testing.assert_array_equal(mask.toarray().ravel(), high == 0)
    assert probability[1] < 1


def test_rare_weak_and_empty_pairs_are_left_alone_and_say_why():
    x = np.zeros((100, 5))
    x[:4, 0] = 9  # 96 % zeros
    x[:5, 1] = 9  # exactly 95 %: fitted
    x[:, 2] = 0.001  # below the mean
    x[:, 3] = 1  # above
    fit = fit_gamma_normal(x, n_labels=1)
    expected = [FitStatus.RARE, FitStatus.FITTED, FitStatus.WEAK, FitStatus.FITTED, FitStatus.RARE]
    np.testing.assert_array_equal(fit.status, [expected])
    with_empty = fit_gamma_normal(x, np.full(100, 1), n_labels=3)
    np.testing.assert_array_equal(with_empty.status[[0, 2]], FitStatus.EMPTY)
    np.testing.assert_array_equal(with_empty.status[1], expected)
    assert not with_empty.dropout_mask(x, np.full(100, 0)).nnz


def test_no_option_makes_a_gene_without_counts_fittable():
    fit = fit_gamma_normal(np.zeros((5, 2)), max_zero_share=1.0, min_mean=0.0)
    np.testing.assert_array_equal(fit.status, FitStatus.RARE)


@pytest.mark.parametrize("value", [1, 7, 1_000_000, 0.5])
def test_constant_genes_are_fitted(value):
    fit = fit_gamma_normal(np.full((20, 1), value))
    assert fit.status == FitStatus.FITTED
    assert fit.mu[0, 0] == pytest.approx(np.log(1.01 + value))
    assert fit.sigma[0, 0] == 0.01


def test_a_label_with_one_cell_is_fitted_where_it_shows_the_gene():
    x, labels = dropout_counts()
    labels = np.append(labels, 3)
    cell = np.arange(x.shape[1]) % 3
    fit = fit_gamma_normal(np.vstack([x, cell]), labels)
    np.testing.assert_array_equal(fit.status[3] == FitStatus.FITTED, cell > 0)
    assert_same_fit(
        fit_gamma_normal(x, labels[:-1]), GammaNormalFit(**{f: first_labels(fit, f) for f in fit.__dataclass_fields__})
    )


def first_labels(fit, name):
    return fit.offset if name == "offset" else getattr(fit, name)[:3]


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)])
def test_matrices_without_cells_or_genes_are_answered(shape):
    for x in (np.zeros(shape), sparse.csr_matrix(shape)):
        fit = fit_gamma_normal(x)
        assert fit.zero_probability().shape == (1, shape[1])
        assert fit.dropout_mask(x).shape == shape


def test_mask_marks_exactly_the_zeros_above_the_threshold():
    x, labels = dropout_counts()
    fit = fit_gamma_normal(x, labels)
    for threshold in (0.2, 0.5, 1.0):
        mask = fit.dropout_mask(sparse.csr_matrix(x), labels, threshold=threshold)
        assert mask.format == "csr"
        assert mask.dtype == bool
        assert mask.has_canonical_format
        np.testing.assert_array_equal(mask.toarray(), (x == 0) & (fit.zero_probability()[labels] >= threshold))


def test_mask_is_the_same_in_blocks(monkeypatch):
    x, labels = dropout_counts()
    fit = fit_gamma_normal(x, labels)
    whole = fit.dropout_mask(x, labels)
    monkeypatch.setattr("scgacl_scvi.dropout._fit.BLOCK_ENTRIES", 13)
    for form in (np.asarray, sparse.csr_matrix):
        np.testing.assert_array_equal(fit.dropout_mask(form(x), labels).toarray(), whole.toarray())


def test_stored_zeros_are_zeros():
    x, labels = dropout_counts()
    stored = sparse.csr_matrix(x + 1)
    stored.data -= 1
    assert stored.nnz == x.size
    fit = fit_gamma_normal(stored, labels)
    assert_same_fit(fit, fit_gamma_normal(x, labels))
    np.testing.assert_array_equal(fit.dropout_mask(stored, labels).toarray(), fit.dropout_mask(x, labels).toarray())


def test_input_is_left_as_it_was():
    x, labels = dropout_counts()
    for form in (np.array, sparse.csr_matrix, sparse.csc_matrix):
        given, copy = form(x), form(x)
        fit_gamma_normal(given, labels).dropout_mask(given, labels)
        assert (given != copy).sum() == 0


def test_a_fit_cannot_be_reassigned():
    fit = fit_gamma_normal(np.ones((3, 1)))
    with pytest.raises(FrozenInstanceError):
        fit.rate = 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "one a cell"),
        ([0.0, 1.0, 1.0], "integer codes"),
        (["a", "b", "b"], "integer codes"),
        ([0, -1, 0], "lie in"),
    ],
)
def test_labels_that_are_no_codes_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        fit_gamma_normal(np.ones((3, 2)), labels)


@pytest.mark.parametrize("option", [{"offset": 0.0}, {"offset": np.nan}, {"max_iter": 0}, {"n_labels": 0}])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match="at least 1"):
        fit_gamma_normal(np.ones((3, 2)), **option)


def test_a_mask_for_other_genes_labels_or_thresholds_is_refused():
    fit = fit_gamma_normal(np.ones((3, 2)), [0, 1, 1])
    with pytest.raises(ValueError, match="genes"):
        fit.dropout_mask(np.ones((3, 4)), [0, 1, 1])
    with pytest.raises(ValueError, match="labels are needed"):
        fit.dropout_mask(np.ones((3, 2)))
    with pytest.raises(ValueError, match="lie in"):
        fit.dropout_mask(np.ones((3, 2)), [0, 1, 2])
    with pytest.raises(ValueError, match="threshold"):
        fit.dropout_mask(np.ones((3, 2)), [0, 1, 1], threshold=0)


@pytest.mark.parametrize("x", [np.ones(3), np.ones((2, 2), dtype=complex), np.array([["a"]])])
def test_what_is_no_matrix_of_numbers_is_refused(x):
    with pytest.raises(ValueError, match="cells x genes"):
        fit_gamma_normal(x)


def test_importing_loads_neither_torch_nor_anndata():
    code = "import sys, scgacl_scvi.dropout; sys.exit(bool({'torch', 'anndata', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
