import numpy as np
import pytest
import scvi
import torch
from tests.conftest import make_counts
from tests.model.test_imputation import fit

from scgacl_scvi import SCGACL
from scgacl_scvi._compat import torch_threads_kept
from scgacl_scvi.model._likelihood_choice import choose_likelihood
from scgacl_scvi.module import heldout_loss
from scgacl_scvi.train import CellLoader, SCGACLTrainingPlan
from scgacl_scvi.train import _plan as _plan_module
from scgacl_scvi.train._adversarial import adversarial_loss, discriminator_loss, frozen
from scgacl_scvi.train._losses import LOSSES
from scgacl_scvi.train._splitter import withheld


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


@pytest.mark.parametrize(("every", "seen"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (9, [0])])
def test_the_discriminator_sees_the_first_batch_and_every_so_many_with_the_weight_of_all(monkeypatch, every, seen):
    batches, factors = [], []
    fused = SCGACLTrainingPlan._fused_update

    def update(plan, batch, generator, discriminator, share):
        before = plan.module.discriminator.real.weight.detach().clone()
        found = fused(plan, batch, generator, discriminator, share)
        batches.append(not torch.equal(before, plan.module.discriminator.real.weight))
        factors.append(share)
        return found

    monkeypatch.setattr(SCGACLTrainingPlan, "_fused_update", update)
    model = fit(
        make_counts(150), model={"gene_likelihood": "nb"}, batch_size=32, plan_kwargs={"discriminator_every": every}
    )
    assert np.flatnonzero(batches[:5]).tolist() == np.flatnonzero(batches[5:]).tolist() == seen
    assert sum(factors) == pytest.approx(len(factors))
    assert model.history["discriminator_train"].iloc[-1].notna().all()


def test_a_discriminator_that_sees_no_batch_is_refused():
    with pytest.raises(ValueError, match=r"discriminator_every=0.*1 for every batch"):
        fit(make_counts(), model={"gene_likelihood": "nb"}, plan_kwargs={"discriminator_every": 0})


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
        {"gene_likelihood": "nb", "n_clusters": 3, "n_hidden": 64},
        pretrain_epochs=12,
        vade_epochs=8,
        batch_size=16,
        **fast,
    )
    assert adjusted_rand_score(adata.obs["cell_type"], model.predict_cluster()) > 0.9


def test_with_all_weights_zero_both_updates_are_plain_vade():
    weights = dict.fromkeys(("weight_adversarial", "weight_cell_contrastive", "weight_type_contrastive"), 0.0)
    states = [
        fit(make_counts(), "cell_type", {"gene_likelihood": "nb"}, train_size=1.0, update=update, **weights)
        for update in ("fused", "published")
    ]
    untouched = SCGACL(states[0].adata, n_latent=4, n_hidden=16, n_hidden_discriminator=16, gene_likelihood="nb")
    before = untouched.module.state_dict()
    for name, value in states[0].module.state_dict().items():
        torch.testing.assert_close(value, states[1].module.state_dict()[name], rtol=0, atol=0)
        if name.startswith("discriminator"):
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def _plan(**kwargs) -> tuple[SCGACLTrainingPlan, dict]:
    """A plan in its joint phase, and a batch of cells."""
    adata = make_counts()
    SCGACL.setup_anndata(adata, labels_key="cell_type")
    model = SCGACL(adata, gene_likelihood="nb", n_hidden=8, n_hidden_discriminator=8)
    plan = SCGACLTrainingPlan(model.module, pretrain_epochs=0, vade_epochs=0, joint_epochs=10, **kwargs)
    return plan, next(iter(CellLoader(model.adata_manager, batch_size=60)))


def test_the_two_players_want_opposite_things():
    plan, _ = _plan()
    taken_for_real, seen_through = torch.full((50,), 4.0), torch.full((50,), -4.0)
    assert adversarial_loss(taken_for_real) < adversarial_loss(seen_through)
    right = discriminator_loss(real_logits=taken_for_real, fake_logits=seen_through)
    assert right < discriminator_loss(real_logits=seen_through, fake_logits=taken_for_real)


@pytest.mark.parametrize("masked", [True, False])
def test_the_discriminator_sees_reconstructions_where_the_cell_was_observed(masked):
    plan, batch = _plan(mask_reconstruction=masked)
    real, fake = plan._profiles(*plan._generate(batch))
    assert (fake[real > 0] > 0).all()
    assert bool((fake[real == 0] == 0).all()) == masked


def test_the_generators_step_leaves_the_discriminator_without_gradient():
    plan, batch = _plan()
    network = plan.module.discriminator
    network.cell.requires_grad_(False)  # frozen by someone else
    with frozen(network):
        loss = adversarial_loss(network(plan._profiles(*plan._generate(batch))[1])[0])
    loss.backward()
    assert plan.module.decoder.output.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in network.parameters())
    assert network.real.weight.requires_grad
    assert not network.cell.weight.requires_grad


def test_the_share_of_reconstructions_in_the_type_contrast_grows_to_one():
    plan, _ = _plan()
    rows = []
    for plan._epoch_in_phase in (0, 9):
        features = [torch.zeros(2000), torch.randn(2000, 4), torch.randn(2000, 4)]
        classes = torch.arange(2000) % 3
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "scgacl_scvi.train._plan.sup_con", lambda kinds, *_: rows.append(len(kinds)) or torch.zeros(())
            )
            patch.setattr(_plan_module, "nt_xent", lambda *_: torch.zeros(()))
            plan._contrasts(features, features, classes)
    assert rows[0] / 2000 == pytest.approx(1.19, abs=0.05)
    assert rows[1] == 4000


@pytest.mark.parametrize("update", ["fused", "published"])
@pytest.mark.parametrize("name", ["cell_contrastive", "type_contrastive"])
def test_a_contrast_with_weight_falls_below_one_without(update, name):
    def last(weight: float) -> float:
        weights = dict.fromkeys(("weight_adversarial", "weight_cell_contrastive", "weight_type_contrastive"), 0.1)
        model = fit(
            make_counts(120),
            "cell_type",
            {"gene_likelihood": "nb"},
            update=update,
            joint_epochs=8,
            joint_lr=5e-3,
            early_stopping=False,
            batch_size=30,
            **{**weights, f"weight_{name}": weight},
        )
        return float(model.history[f"{name}_train"].iloc[-1, 0])

    assert last(200.0) < last(0.1)


def test_best_weights_are_restored():
    model = fit(
        make_counts(100), model={"gene_likelihood": "nb"}, joint_lr=5.0, joint_epochs=3
    )  # a harmful joint phase
    metric = model.history["heldout_nll_validation"].iloc[:, 0].astype(float)
    assert model.best_epoch_ == int(metric.iloc[3:].argmin()) + 3  # from the middle of the VaDE phase on
    assert model.best_epoch_ < 4
    hidden = withheld(model.adata_manager, model.validation_indices, model.heldout_seed_, False)
    loader = CellLoader(model.adata_manager, model.validation_indices, 100, withheld=hidden, show_withheld=True)
    nats, molecules = heldout_loss(model.module, *loader).tolist()
    assert nats / molecules == pytest.approx(metric.iloc[3:].min(), rel=1e-5)


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
    assert model.phases_["joint"] == (4, len(model.history["train_loss"]))


def test_a_second_call_goes_on_with_the_joint_phase():
    model = fit(make_counts(), model={"gene_likelihood": "nb"})
    prior = model.module.prior.active.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scgacl_scvi.train._plan.start_prior", None)  # is not fitted again
        model.train(joint_epochs=2, enable_progress_bar=False)
    assert len(model.history["train_loss"]) == 8
    assert model.phases_ == {"autoencoder": (0, 2), "vade": (2, 4), "joint": (4, 8)}
    assert torch.equal(model.module.prior.active, prior)


def test_max_epochs_is_shared_out(adata):
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata, gene_likelihood="nb", n_hidden=8, n_hidden_discriminator=8)
    model.train(max_epochs=7, enable_progress_bar=False)
    assert len(model.history["train_loss"]) == 7
    with pytest.raises(ValueError, match="max_epochs"):
        model.train(max_epochs=7, vade_epochs=3)


def test_stored_zeros_do_not_change_the_choice():
    adata = make_counts(200, 60, dropout=0.6)
    stored = adata.X.copy()
    stored.data[::3] = 0
    clean = stored.copy()
    clean.eliminate_zeros()
    library = np.ravel(clean.sum(1))
    assert choose_likelihood(stored, library) == choose_likelihood(clean, library)


def test_impossible_training_is_refused(adata):
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata, gene_likelihood="nb")
    for wrong in ({"batch_size": 0}, {"vade_lr": 0.0}, {"train_size": 0.0}, {"joint_batch_size": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            model.train(**wrong)
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
    plan = model.trainer.lightning_module
    assert list(plan.learning_rates.values()) == [1e-3, 1e-3, 1e-4]
    assert plan.weights == (0.5, 2.0, 3.0)
    assert (plan.temperature, plan.update, plan.mask_reconstruction) == (0.5, "published", False)
    assert list(model.trainer.datamodule.batch_sizes.values()) == [16, 16, 8]
    assert model.module.prior.n_active == 4


def test_fits_of_scikit_learn_leave_torchs_number_of_threads():
    before = torch.get_num_threads()
    with torch_threads_kept():
        torch.set_num_threads(before + 1)
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before

    def failing():
        with torch_threads_kept():
            torch.set_num_threads(before + 1)
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        failing()
    assert torch.get_num_threads() == before
