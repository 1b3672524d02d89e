import numpy as np
import pytest
import scvi
from scipy import sparse

from scgacl_scvi import SCGACL, datasets, evaluate

from .conftest import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_uncertainty_is_a_positive_number_for_each_gene_that_was_seen(models, kind):
    model = models[kind]
    sd = model.get_imputed_uncertainty(n_samples=10)
    assert list(sd.columns) == list(model.adata.var_names)
    assert (sd.to_numpy()[:, 4] == 0).all()
    others = np.delete(sd.to_numpy(), 4, axis=1)
    assert (others >= 0).all() if kind == "paper" else (others > 0).all()  # the paper's ReLU may be 0 for every z
    assert others.mean() > 0


@pytest.mark.parametrize(("kind", "scale"), [("nb", "counts"), ("zinb", "cp10k")])
def test_uncertainty_is_the_spread_of_drawn_expression(models, kind, scale):
    """The closed form given z against draws of z and expression, all independent of it but the sampler."""
    import torch

    from scgacl_scvi.model._posterior_draws import draw_expression

    model, module = models[kind], models[kind].module
    sd = model.get_imputed_uncertainty(scale=scale, n_samples=100, return_type="numpy")
    generator = torch.Generator().manual_seed(5)
    tensors = next(iter(model._make_data_loader(adata=model.adata, batch_size=60)))
    with torch.inference_mode():
        inferred = module.encode(**module._get_inference_input(tensors))
        x, depth, draws = tensors["X"], inferred["library"] / module.median_library, []
        for _ in range(300):
            z = inferred["qz"].loc + inferred["qz"].scale * torch.randn(inferred["qz"].loc.shape, generator=generator)
            own = module.predict(tensors, {**inferred, "z": z})
            if scale == "counts":
                draws.append(draw_expression(module, x, own["rate"], own["theta"], generator))
            else:
                drawn = draw_expression(module, x / depth, own["scale"], own["theta"], generator)
                draws.append(drawn * (1e4 / module.median_library))
        expected = torch.stack(draws).std(0).numpy()
    seen = np.arange(30) != 4
    ratio = sd[:, seen] / expected[:, seen]
    assert np.median(ratio) == pytest.approx(1, abs=0.04)
    assert np.quantile(np.abs(ratio - 1), 0.9) < 0.25


def test_uncertainty_on_a_log_scale_is_that_of_the_log(models):
    """Where the spread is small beside the value, sd(log1p(y)) is close to sd(y) / (1 + y)."""
    model = models["nb"]
    kwargs = {"return_type": "numpy", "n_samples": 200}
    log, linear = (model.get_imputed_uncertainty(scale=s, **kwargs) for s in ("log1p_cp10k", "cp10k"))
    value = model.get_imputed_expression(policy="denoise", scale="cp10k", return_numpy=True)
    small = (linear < 0.3 * value) & (value > 0)
    assert small.sum() > 100
    assert np.median(log[small] * (1 + value[small]) / linear[small]) == pytest.approx(1, abs=0.1)


def test_uncertainty_of_an_observed_entry_falls_with_depth(models):
    model = models["nb"]
    deep = model.adata.copy()
    deep.X = np.asarray(deep.X) * 20
    relative = []
    for adata in (model.adata, deep):
        sd = model.get_imputed_uncertainty(adata, scale="counts", return_type="numpy", n_samples=20)
        relative.append(sd / (np.asarray(adata.X) + 1))
    seen = np.asarray(model.adata.X) > 2
    assert (relative[1] < relative[0])[seen].mean() > 0.8


@pytest.mark.parametrize(
    ("kind", "wrong", "named"),
    [
        ("nb", {"n_samples": 1}, "n_samples"),
        ("nb", {"scale": "tpm"}, "scale"),
        ("nb", {"return_type": "csr"}, "return_type"),
        ("normal", {"scale": "cp10k"}, "scale"),
        ("nb", {"indices": [0], "layer_key": "sd"}, "layer_key"),
    ],
)
def test_uncertainty_refuses_what_it_cannot_give(models, kind, wrong, named):
    with pytest.raises(ValueError, match=named):
        models[kind].get_imputed_uncertainty(**wrong)


@pytest.mark.parametrize("kind", ["nb", "zinb"])
def test_samples_are_sparse_counts_and_repeat_with_their_seed(models, kind):
    model = models[kind]
    one, again = model.posterior_predictive_sample(), model.posterior_predictive_sample()
    assert sparse.issparse(one)
    assert one.shape == model.adata.shape
    assert (one != again).nnz == 0
    assert (one.data == np.rint(one.data)).all()
    assert (one.toarray()[:, 4] == 0).all()
    scvi.settings._seed = 1
    assert (one != model.posterior_predictive_sample()).nnz > 0
    several = model.posterior_predictive_sample(n_samples=3, gene_list=list(model.adata.var_names[:2]))
    assert several.shape == (60, 2, 3)


def test_samples_given_the_counts_follow_them_and_those_given_z_do_not(models):
    model = models["nb"]
    counts = np.asarray(model.adata.X)
    means = {}
    for given in (True, False):
        draws = model.posterior_predictive_sample(n_samples=30, given_counts=given).todense().mean(-1)
        residual = counts - np.asarray(model.get_normalized_expression(library_size="latent"))
        means[given] = np.corrcoef(draws.ravel(), residual.ravel())[0, 1]
    assert means[True] > means[False] + 0.1


def test_the_mean_of_samples_is_the_posterior_mean(models):
    for kind in ("nb", "zinb"):
        model = models[kind]
        draws = model.posterior_predictive_sample(n_samples=200).todense().mean(-1)
        mean = model.get_imputed_expression(
            policy="denoise", scale="counts", n_samples=200, return_numpy=True, layer_key=None
        )
        assert np.abs(draws - mean).mean() < 0.1 * mean.mean(), kind


def test_samples_suffer_the_dropout_of_the_data_only_when_asked(models):
    model = models["zinb"]
    zeros = {}
    for dropout in (False, True):
        zeros[dropout] = 1 - model.posterior_predictive_sample(given_counts=False, dropout=dropout).nnz / (60 * 30)
    observed = (np.asarray(model.adata.X) == 0).mean()
    assert zeros[True] == pytest.approx(observed, abs=0.06)
    assert zeros[False] < observed - 0.15


@pytest.mark.parametrize(
    ("kind", "wrong", "named"),
    [
        ("normal", {}, "normal"),
        ("nb", {"dropout": True}, "dropout"),
        ("nb", {"n_samples": 0}, "n_samples"),
        ("nb", {"transform_batch": "one"}, "given_counts"),
        ("nb", {"n_samples": 2, "layer_key": "draws"}, "layer_key"),
    ],
)
def test_samples_refuse_what_they_cannot_give(models, kind, wrong, named):
    with pytest.raises(ValueError, match=named):
        models[kind].posterior_predictive_sample(**wrong)


def held_out_coverage(counts, **sample) -> float:
    """Coverage of 90 % intervals of one half of the molecules, predicted from the other."""
    train, test = datasets.thin(counts, 0.5, 0)
    kept = np.ravel(train.sum(0)) > 0
    adata = _adata(train[:, kept])
    scvi.settings._seed = 0
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata)
    model.train(enable_progress_bar=False, pretrain_epochs=10, vade_epochs=20, joint_epochs=5)

    def samples():
        for seed in range(9):
            scvi.settings._seed = seed
            yield model.posterior_predictive_sample(**sample)

    return evaluate.coverage(evaluate.randomised_pit(test[:, kept], samples(), seed=0), 0.9)


def _adata(counts):
    import anndata

    return anndata.AnnData(sparse.csr_matrix(counts, dtype=np.float32))


@pytest.mark.parametrize("dropout", [False, True])
def test_intervals_of_simulated_counts_hold_what_they_state(dropout):
    counts = datasets.simulate_splat(200, 120, group_proportions=[0.5, 0.5], dropout=dropout, library_loc=7, seed=6).X
    assert 0.88 <= held_out_coverage(counts, dropout=dropout) <= 0.92
