import numpy as np
import pytest
import scvi
from scipy import sparse
from sklearn.metrics import roc_auc_score
from tests.conftest import make_counts

from scgacl_scvi import SCGACL, datasets, evaluate
from scgacl_scvi.dropout import fit_gamma_normal

from .conftest import KINDS, short_fit

METHODS = {"nb": ("posterior", "mixture"), "zinb": ("posterior", "mixture"), "normal": ("mixture",)}
METHODS["paper"] = METHODS["normal"]
CALLS = [(kind, method) for kind in KINDS for method in METHODS[kind]]


@pytest.mark.parametrize(("kind", "method"), CALLS)
def test_only_zeros_of_genes_that_were_seen_have_a_probability(models, kind, method):
    model = models[kind]
    found = model.get_dropout_probability(method=method)
    assert sparse.issparse(found)
    values, counts = found.toarray(), np.asarray(model.adata.X)
    assert found.nnz == np.count_nonzero(values)  # no zero is stored
    assert (values[counts > 0] == 0).all()
    assert (values[:, 4] == 0).all()
    zero = (counts == 0) & (np.arange(30) != 4)
    assert ((values[zero] >= 0) & (values[zero] <= 1)).all()
    assert values[zero].max() > 0.05


@pytest.mark.parametrize(("kind", "method"), [("nb", "posterior"), ("zinb", "posterior"), ("normal", "mixture")])
@pytest.mark.parametrize("threshold", [0.2, 0.5])
def test_impute_fills_the_zeros_whose_probability_reaches_the_threshold(models, kind, method, threshold):
    model = models[kind]
    probability = model.get_dropout_probability(method=method, return_type="numpy")
    values = model.get_imputed_expression(threshold=threshold, return_numpy=True, layer_key=None)
    zero = (np.asarray(model.adata.X) == 0) & (np.arange(30) != 4)
    np.testing.assert_array_equal(values[zero] > 0, probability[zero] >= threshold)


def test_the_mixture_is_that_of_the_published_rule_in_each_label(models):
    model = models["nb"]
    codes = model.adata.obs["cell_type"].astype("category").cat.codes.to_numpy()
    counts = np.asarray(model.adata.X)
    expected = fit_gamma_normal(counts, codes, max_zero_share=1.0).zero_probability()[codes]
    found = model.get_dropout_probability(method="mixture", return_type="numpy")
    np.testing.assert_allclose(found, np.where(counts == 0, expected, 0), rtol=1e-5, atol=1e-7)


def test_part_of_it_is_the_same_as_all_of_it(models):
    model = models["zinb"]
    whole = model.get_dropout_probability(return_type="frame")
    genes = list(whole.columns[[7, 2]])
    part = model.get_dropout_probability(indices=[9, 3], gene_list=genes, batch_size=1, return_type="frame")
    np.testing.assert_allclose(part, whole.iloc[[9, 3]][genes], rtol=1e-4, atol=1e-5)
    with pytest.raises(KeyError, match="nogene"):
        model.get_dropout_probability(gene_list=["nogene"])


def test_a_model_without_a_likelihood_of_zeros_says_so(models):
    with pytest.raises(ValueError, match="method='mixture'"):
        models["paper"].get_dropout_probability()
    with pytest.raises(ValueError, match="method"):
        models["nb"].get_dropout_probability(method="em")


def test_probabilities_outlive_saving(models, tmp_path):
    model = models["zinb"]
    model.save(tmp_path / "model")
    again = SCGACL.load(tmp_path / "model", adata=model.adata.copy())
    assert (again.get_dropout_probability() != model.get_dropout_probability()).nnz == 0


def test_new_cells_have_probabilities_without_training(models):
    other = make_counts(seed=5)
    assert models["zinb"].get_dropout_probability(other).shape == (60, 30)
    assert models["nb"].get_dropout_probability(other, method="mixture").shape == (60, 30)


def test_a_zero_in_a_deep_cell_says_more(models):
    """The same cell at a tenth of its depth: the zeros that thinning leaves are surer to show the gene again."""
    model = models["nb"]
    shallow = model.adata.copy()
    deep = model.adata.copy()
    deep.X = np.asarray(deep.X) * 10
    p_deep, p_shallow = (model.get_dropout_probability(a, return_type="numpy") for a in (deep, shallow))
    zero = (np.asarray(model.adata.X) == 0) & (np.arange(30) != 4)
    assert (p_deep[zero] < p_shallow[zero]).mean() > 0.95


@pytest.fixture(scope="module")
def simulated():
    adata = datasets.simulate_splat(300, 300, group_proportions=[0.5, 0.3, 0.2], dropout_midpoint=2.0, seed=4)
    scvi.settings._seed = 0
    SCGACL.setup_anndata(adata, labels_key="group")
    model = SCGACL(adata)
    model.train(enable_progress_bar=False, pretrain_epochs=15, vade_epochs=25, joint_epochs=10)
    return model


def test_the_posterior_is_calibrated_and_beats_the_mixture(simulated):
    adata = simulated.adata
    zero = adata.X.toarray() == 0
    truth = adata.layers["dropout_mask"].toarray()[zero]
    posterior, mixture = (
        simulated.get_dropout_probability(method=method, return_type="numpy")[zero]
        for method in ("posterior", "mixture")
    )
    table = evaluate.reliability(posterior, truth)
    assert table.attrs["error"] < 0.1
    assert table.attrs["brier"] < evaluate.reliability(mixture, truth).attrs["brier"] - 0.03
    assert roc_auc_score(truth, posterior) > max(0.85, roc_auc_score(truth, mixture) + 0.03)


def test_dropouts_are_filled_higher_than_true_zeros_which_a_threshold_leaves(simulated):
    adata = simulated.adata
    zero = adata.X.toarray() == 0
    mask = adata.layers["dropout_mask"].toarray()
    values = simulated.get_imputed_expression(return_numpy=True, layer_key=None)
    assert (values[zero & mask] > 0).mean() > 0.95
    assert values[zero & ~mask].mean() < 0.5 * values[zero & mask].mean()
    filled = simulated.get_imputed_expression(threshold=0.5, return_numpy=True, layer_key=None) > 0
    assert filled[zero & mask].mean() > 0.7
    assert filled[zero & ~mask].mean() < 0.45


def test_a_second_training_fits_the_curve_anew():
    model = short_fit(make_counts(dropout=0.4), gene_likelihood="zinb")
    before = model.module.dropout_curve.log_factor.clone()
    model.train(joint_epochs=2, enable_progress_bar=False)
    assert not (model.module.dropout_curve.log_factor == before).all()
