import numpy as np
import pytest
import scvi
import torch
from tests.conftest import make_counts
from tests.model.test_imputation import fit

from scgacl_scvi import SCGACL
from scgacl_scvi.model._likelihood_choice import choose_likelihood
from scgacl_scvi.train._plan import LOSSES


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    results = []
    for seed in (0, 0, 1):
        scvi.settings._seed = seed
        torch.rand(seed + 3)  # the state of the user's generator does not matter
        model = fit(make_counts(), "cell_type", {"gene_likelihood": "nb"})
        results.append(model.get_imputed_expression(return_numpy=True))
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


@pytest.mark.parametrize("update", ["fused", "published"])
def test_every_loss_is_logged_in_every_phase(update):
    history = fit(make_counts(), "cell_type", {"gene_likelihood": "nb"}, update=update).history
    names = ["elbo", *(name for name in LOSSES if name != "loss")]
    expected = {f"{name}_{mode}" for name in names for mode in ("train", "validation")}
    expected |= {"train_loss", "validation_loss", "heldout_nll_validation"}
    assert expected <= set(history)
    for name in expected:
        values = history[name].iloc[:, 0].astype(float)
        assert len(values) == 6
        late = name.split("_")[0] in ("adversarial", "discriminator", "cell", "type")
        assert values.isna().tolist() == ([True] * 4 + [False] * 2 if late else [False] * 6), name


def test_training_lowers_the_held_out_metric():
    model = fit(make_counts(300), model={"gene_likelihood": "nb"}, pretrain_epochs=6, vade_epochs=6, joint_epochs=4)
    metric = model.history["heldout_nll_validation"].iloc[:, 0].astype(float)
    assert metric.min() < metric.iloc[0] - 0.01


def test_training_finds_the_types_without_labels():
    from sklearn.metrics import adjusted_rand_score

    adata = make_counts(240, 60)
    fast = {"pretrain_lr": 5e-3, "vade_lr": 5e-3}
    model = fit(
        adata,
        None,
        {"gene_likelihood": "nb", "n_clusters": 3},
        pretrain_epochs=12,
        vade_epochs=8,
        batch_size=16,
        **fast,
    )
    assert adjusted_rand_score(adata.obs["cell_type"], model.predict_cluster()) > 0.9


@pytest.mark.parametrize("update", ["fused", "published"])
def test_losses_of_weight_zero_leave_the_generator_alone(update):
    """With all three weights zero the joint phase is the VaDE phase at the joint learning rate."""
    weights = dict.fromkeys(("weight_adversarial", "weight_cell_contrastive", "weight_type_contrastive"), 0.0)
    model = fit(make_counts(), "cell_type", {"gene_likelihood": "nb"}, update=update, **weights)
    untouched = SCGACL(model.adata, n_latent=4, n_hidden=16, n_hidden_discriminator=16, gene_likelihood="nb")
    for name, before in untouched.module.discriminator.named_parameters():
        torch.testing.assert_close(dict(model.module.discriminator.named_parameters())[name], before)


def test_each_loss_moves_what_it_should():
    adata = make_counts()
    plain = fit(adata, "cell_type", {"gene_likelihood": "nb"}, train_size=1.0)
    for name in ("adversarial", "cell_contrastive", "type_contrastive"):
        model = fit(adata, "cell_type", {"gene_likelihood": "nb"}, train_size=1.0, **{f"weight_{name}": 500.0})
        assert not torch.equal(model.module.decoder.output.weight, plain.module.decoder.output.weight), name


def test_best_weights_are_restored():
    model = fit(make_counts(), model={"gene_likelihood": "nb"}, joint_lr=1.0, joint_epochs=3)  # a harmful joint phase
    metric = model.history["heldout_nll_validation"].iloc[:, 0].astype(float)
    assert model.best_epoch_ == int(metric.iloc[2:].argmin()) + 2
    assert np.isfinite(model.get_imputed_expression(return_numpy=True)).all()


def test_early_stopping_waits_for_the_joint_phase():
    model = fit(
        make_counts(),
        model={"gene_likelihood": "nb"},
        joint_epochs=60,
        joint_lr=1e-8,
        early_stopping_min_delta=10.0,
        early_stopping=True,
    )
    assert 4 < len(model.history["train_loss"]) < 40


def test_a_second_call_goes_on_with_the_joint_phase():
    model = fit(make_counts(), model={"gene_likelihood": "nb"})
    prior = model.module.prior.active.clone()
    model.train(joint_epochs=2, enable_progress_bar=False)
    assert len(model.history["train_loss"]) == 8
    assert torch.equal(model.module.prior.active, prior)


def test_max_epochs_is_shared_out(adata):
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata, gene_likelihood="nb", n_hidden=8, n_hidden_discriminator=8)
    model.train(max_epochs=7, enable_progress_bar=False)
    assert len(model.history["train_loss"]) == 7
    with pytest.raises(ValueError, match="max_epochs"):
        model.train(max_epochs=7, vade_epochs=3)


def test_impossible_training_is_refused(adata):
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata, gene_likelihood="nb")
    with pytest.raises(ValueError, match="early_stopping"):
        model.train(train_size=1.0, early_stopping=True)
    with pytest.raises(ValueError, match="max_epochs"):
        model.train(max_epochs=0)
    with pytest.raises(ValueError, match="update"):
        model.train(update="both")


def test_a_diverging_fit_says_so():
    with pytest.raises(FloatingPointError, match="vade_lr"):
        fit(make_counts(), model={"gene_likelihood": "zinb"}, vade_lr=1e20)


def test_auto_chooses_zinb_for_dropout_and_nb_for_counts():
    for dropout, expected in ((0.0, "nb"), (0.6, "zinb")):
        adata = make_counts(200, 60, dropout=dropout)
        SCGACL.setup_anndata(adata)
        model = SCGACL(adata)
        assert model.module.gene_likelihood == expected
        assert model.likelihood_choice_["gene_likelihood"] == expected
        assert (model.likelihood_choice_["excess_zero_share"] > 0.1) == (expected == "zinb")


@pytest.mark.parametrize("dispersion", [0.1, 1.0, 5.0])
def test_excess_of_zeros_is_none_for_negative_binomial_counts(dispersion):
    rng = np.random.default_rng(0)
    depth = rng.lognormal(0, 0.4, (800, 1))
    mean = depth * rng.lognormal(0, 1.5, 200)
    counts = rng.poisson(rng.gamma(1 / dispersion, mean * dispersion)).astype(np.float32)
    assert abs(choose_likelihood(counts, counts.sum(1)).excess_zero_share) < 0.05


@pytest.mark.filterwarnings("ignore:Category")
@pytest.mark.parametrize("share", [0.1, 1.0])
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_labels_may_be_given_in_part(share, preset):
    adata = make_counts()
    labels = adata.obs["cell_type"].astype(object)
    labels[np.random.default_rng(0).random(60) > share] = np.nan
    adata.obs["cell_type"] = labels
    model = fit(adata, "cell_type", {"preset": preset})
    assert np.isfinite(model.get_imputed_expression(return_numpy=True)).all()


@pytest.mark.filterwarnings("ignore:Category")
def test_a_label_with_one_cell_trains():
    adata = make_counts()
    labels = adata.obs["cell_type"].to_numpy().astype(object)
    labels[7] = "single"
    adata.obs["cell_type"] = labels
    assert np.isfinite(fit(adata, "cell_type").get_imputed_expression(return_numpy=True)).all()


@pytest.mark.filterwarnings("ignore:Category")  # scvi-tools' word on categories of fewer than three cells
@pytest.mark.parametrize("n_cells", [2, 3, 11])
def test_few_cells_train(n_cells):
    values = fit(make_counts(n_cells), model={"gene_likelihood": "nb"}).get_imputed_expression(return_numpy=True)
    assert np.isfinite(values).all()


def test_the_published_schedule_is_reachable_by_name():
    model = fit(
        make_counts(),
        "cell_type",
        {"preset": "paper", "n_clusters": 4},
        vade_batch_size=16,
        joint_batch_size=8,
        pretrain_lr=1e-3,
        vade_lr=1e-3,
        joint_lr=1e-4,
        weight_adversarial=0.5,
        weight_cell_contrastive=2.0,
        weight_type_contrastive=3.0,
        temperature=0.5,
    )
    assert model.module.gene_likelihood == "normal"
    assert model.best_epoch_ is None  # trains on all cells
    assert len(model.train_indices) == 60
