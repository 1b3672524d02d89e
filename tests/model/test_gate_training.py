import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch import Callback
from scipy import sparse
from tests.conftest import make_counts
from tests.model.test_imputation import fit

from scgacl_scvi import SCGACL
from scgacl_scvi.train._loader import heldout_groups


def _trained(likelihood: str, joint_epochs: int, change: float = 0.0, apart: np.ndarray | None = None) -> SCGACL:
    """A short fit; ``change`` is added to the held-out entries of all cells but ``apart``."""
    adata = make_counts(80)
    SCGACL.setup_anndata(adata, labels_key="cell_type")
    model = SCGACL(adata, gene_likelihood=likelihood, n_latent=4, n_hidden=16, n_hidden_discriminator=16)
    if change:  # after the model took library and gene means from the data
        kept_back = heldout_groups("cells", 80, 0)[:, None] == model.module.gene_group.numpy()
        kept_back[apart] = False
        assert 0.1 < kept_back.mean() < 0.25
        adata.X = adata.X + change * sparse.csr_matrix(kept_back.astype(np.float32))
    model.train(pretrain_epochs=2, vade_epochs=2, joint_epochs=joint_epochs, enable_progress_bar=False)
    return model


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_before_the_joint_phase_training_is_the_same_to_the_bit_whatever_the_held_out_entries_are(likelihood):
    one = _trained(likelihood, 0)
    other = _trained(likelihood, 0, 50.0, one.validation_indices)
    for (name, value), changed in zip(one.module.named_parameters(), other.module.parameters(), strict=True):
        assert torch.equal(value, changed), name
    for name in ("train_loss", "heldout_nll_validation"):
        assert one.history[name].equals(other.history[name])
    assert not torch.equal(one.module.gate.evidence, other.module.gate.evidence)  # which is what they were kept for


def test_the_joint_phase_sees_all_entries_and_the_choice_of_the_gate_was_made_before():
    without, short, long = (_trained("nb", joint_epochs) for joint_epochs in (0, 2, 4))
    for name in ("evidence", "weight_cluster", "weight_generator"):
        chosen = [getattr(model.module.gate, name) for model in (without, short, long)]
        assert torch.equal(chosen[0], chosen[1]), name
        assert torch.equal(chosen[0], chosen[2]), name
    changed = _trained("nb", 2, 50.0, short.validation_indices)
    assert changed.history["train_loss"].iloc[:4].equals(short.history["train_loss"].iloc[:4])
    assert changed.history["train_loss"].iloc[4, 0] > 1.05 * short.history["train_loss"].iloc[4, 0]


def test_the_learning_rates_of_the_joint_phase_fall_to_zero():
    rates = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, plan, *_):
            rates.append(plan.optimizers()[0].param_groups[0]["lr"])

    fit(
        make_counts(), model={"gene_likelihood": "nb"}, joint_epochs=3, joint_lr=0.3, batch_size=20, callbacks=[Watch()]
    )
    joint = np.array(rates[-9:])
    np.testing.assert_allclose(joint, 0.3 * (1 - np.arange(9) / 9), rtol=1e-6)
    assert len(set(rates[:-9])) <= 2


def test_later_trainings_keep_what_the_first_one_chose():
    model = fit(make_counts(), model={"gene_likelihood": "nb"})
    before = {name: value.clone() for name, value in model.module.gate.named_buffers()}
    scvi.settings._seed = 7
    model.train(joint_epochs=1, joint_lr=0.02, enable_progress_bar=False)
    assert model.seed_ == 7
    assert model.trainer.datamodule.heldout_groups is None  # nothing is left to judge genes by
    after = dict(model.module.gate.named_buffers())
    for name in ("fitted", "evidence", "weight_cluster", "weight_generator"):
        assert torch.equal(after[name], before[name]), name
    assert not torch.equal(after["log_mean"], before["log_mean"])  # the generator's depth correction has changed


def test_a_training_without_joint_phase_leaves_the_held_out_entries_to_the_next_one():
    model = fit(make_counts(), model={"gene_likelihood": "nb"}, joint_epochs=0)
    cells = model.trainer.datamodule.heldout_groups
    scvi.settings._seed = 7
    model.train(joint_epochs=1, enable_progress_bar=False)
    np.testing.assert_array_equal(model.trainer.datamodule.heldout_groups, cells)
    assert model.saw_all_entries_


def test_a_training_that_breaks_off_before_the_joint_phase_leaves_the_gate_to_the_next_one():
    class Break(Callback):
        def on_train_epoch_end(self, trainer, plan):
            if trainer.current_epoch == 1:
                raise RuntimeError("lost power")

    adata = make_counts()
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata, gene_likelihood="nb", n_latent=4, n_hidden=16, n_hidden_discriminator=16)
    epochs = {"pretrain_epochs": 2, "vade_epochs": 2, "joint_epochs": 2, "enable_progress_bar": False}
    with pytest.raises(RuntimeError, match="lost power"):
        model.train(**epochs, callbacks=[Break()])
    assert not model.saw_all_entries_
    model.train(**epochs)
    assert model.module.gate.fitted
    assert model.saw_all_entries_


@pytest.mark.parametrize("epochs", [{"max_epochs": 3}, {"vade_epochs": 0}])
def test_the_prior_never_sees_what_is_kept_for_the_gate(epochs):
    found = []
    for change in (0.0, 50.0):
        adata = make_counts(80)
        SCGACL.setup_anndata(adata)
        model = SCGACL(adata, gene_likelihood="nb", n_latent=4, n_hidden=16, n_hidden_discriminator=16)
        kept_back = heldout_groups("cells", 80, 0)[:, None] == model.module.gene_group.numpy()
        adata.X = adata.X + change * sparse.csr_matrix(kept_back.astype(np.float32))
        model.train(**{"pretrain_epochs": 2, "joint_epochs": 1} | epochs if "vade_epochs" in epochs else epochs)
        found.append(model.bic_)
    assert found[0] == found[1]


def test_only_count_likelihoods_have_a_gate(adata):
    for model in ({"gene_likelihood": "normal"}, {"preset": "paper"}):
        with pytest.raises(ValueError, match="gate_genes"):
            fit(adata, "cell_type", model, gate_genes=True)
        trained = fit(adata, "cell_type", model)
        assert not trained.module.gate.fitted
        assert trained.trainer.datamodule.heldout_groups is None


def test_without_the_gate_training_sees_everything_and_getters_are_the_generators():
    model = fit(make_counts(), model={"gene_likelihood": "nb"}, gate_genes=False)
    assert not model.module.gate.fitted
    assert model.trainer.datamodule.heldout_groups is None
    assert fit(make_counts(), model={"gene_likelihood": "nb"}).module.gate.fitted


def test_a_training_without_the_gate_opens_that_of_an_earlier_one():
    model = fit(make_counts(), model={"gene_likelihood": "nb"})
    gate = model.module.gate
    gate.weight_generator.zero_()  # closed to the generator: what is stale shows
    model.train(joint_epochs=1, gate_genes=False, enable_progress_bar=False)
    assert not gate.fitted
    assert gate.evidence.isnan().all()
    assert (gate.weight_generator == 1).all()


def test_entries_that_a_training_saw_judge_no_gene_later():
    model = fit(make_counts(), model={"gene_likelihood": "nb"}, gate_genes=False)
    with pytest.raises(ValueError, match="gate_genes"):
        model.train(joint_epochs=1, gate_genes=True, enable_progress_bar=False)
    model.train(joint_epochs=1, enable_progress_bar=False)
    assert not model.module.gate.fitted


def test_a_loaded_model_remembers_that_it_saw_all_entries(tmp_path):
    adata = make_counts()
    model = fit(adata, model={"gene_likelihood": "nb"}, gate_genes=False)
    model.save(tmp_path / "model")
    loaded = SCGACL.load(tmp_path / "model", adata=adata)
    with pytest.raises(ValueError, match="gate_genes"):
        loaded.train(joint_epochs=1, gate_genes=True, enable_progress_bar=False)
