import numpy as np
import pytest
from scipy import sparse

from scgacl_scvi.evaluate import baselines, lognorm


@pytest.fixture
def counts():
    x = np.random.default_rng(0).poisson(0.8, (30, 12))
    x[:10, 3] = 0  # a gene that type "B" lacks
    x[:, 4] = 0  # a gene that nobody has
    return x


labels = np.repeat(["B", "T", "NK"], 10)


def test_no_imputation_is_a_copy_of_the_counts(counts):
    for x in (counts, sparse.csr_matrix(counts)):
        out = baselines.no_imputation(x)
        assert type(out) is type(x)
        assert (out != x).sum() == 0
        assert out is not x


def test_the_gene_mean_keeps_the_totals_of_cells_and_genes(counts):
    for x in (counts, sparse.csr_array(counts)):
        rates = baselines.gene_mean(x)
        np.testing.assert_allclose(rates.sum(1), counts.sum(1), rtol=1e-5)
        np.testing.assert_allclose(rates.sum(0), counts.sum(0), rtol=1e-5)
        assert np.linalg.matrix_rank(rates, tol=1e-4) == 1


def test_the_type_mean_agrees_with_a_loop(counts):
    u = lognorm(counts)
    expected = u.copy()
    for i, label in enumerate(labels):
        for j in range(u.shape[1]):
            column = u[labels == label, j]
            if u[i, j] == 0 and column.any():
                expected[i, j] = column[column > 0].mean()
    for x in (counts, sparse.csr_matrix(counts), sparse.csc_array(counts)):
        np.testing.assert_allclose(baselines.type_mean(x, labels), expected, rtol=1e-5)


def test_imputing_controls_keep_observed_entries_and_fill_all_other_zeros(counts):
    observed = counts > 0
    for filled in (baselines.type_mean(counts, labels), baselines.gene_mean_impute(counts)):
        np.testing.assert_array_equal(filled[observed], lognorm(counts)[observed])
        assert (filled[:, 4] == 0).all()
    assert (baselines.type_mean(counts, labels)[:10, 3] == 0).all()
    assert (np.delete(baselines.gene_mean_impute(counts), 4, axis=1) > 0).all()


def test_gene_mean_impute_is_the_type_mean_of_a_single_type(counts):
    np.testing.assert_array_equal(
        baselines.gene_mean_impute(counts), baselines.type_mean(counts, ["all"] * len(counts))
    )


def test_bad_counts_are_named_with_a_remedy():
    for control in (baselines.no_imputation, baselines.gene_mean, baselines.gene_mean_impute):
        with pytest.raises(ValueError, match="counts: holds negative values; pass counts"):
            control([[-1.0, 2.0]])
    with pytest.raises(ValueError, match="counts: all entries are zero"):
        baselines.gene_mean([[0, 0]])
