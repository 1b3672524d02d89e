import numpy as np
import pytest
import scvi
import torch
from scipy import sparse
from tests.conftest import make_counts
from tests.model.test_imputation import fit

from scgacl_scvi import SCGACL
from scgacl_scvi.train._loader import heldout_groups


@pytest.mark.parametrize(("likelihood", "update"), [("nb", "fused"), ("zinb", "fused"), ("nb", "published")])
def test_training_is_the_same_to_the_bit_whatever_the_held_out_entries_are(likelihood, update):
    models = []
    for change in (0, 50):
        adata = make_counts(80)
        SCGACL.setup_anndata(adata, labels_key="cell_type")
        model = SCGACL(adata, gene_likelihood=likelihood, n_latent=4, n_hidden=16, n_hidden_discriminator=16)
        if change:  # after the model took library and gene means from the data
            kept_back = heldout_groups("cells", 80, 0)[:, None] == model.module.gene_group.numpy()
            kept_back[models[0].validation_indices] = False
            assert 0.05 < kept_back.mean() < 0.15
            adata.X = adata.X + change * sparse.csr_matrix(kept_back.astype(np.float32))
        model.train(pretrain_epochs=2, vade_epochs=2, joint_epochs=2, update=update, enable_progress_bar=False)
        models.append(model)
    for (name, one), other in zip(models[0].module.named_parameters(), models[1].module.parameters(), strict=True):
        assert torch.equal(one, other), name
    for name in ("train_loss", "heldout_nll_validation"):
        assert models[0].history[name].equals(models[1].history[name])
    gates = [model.module.gate for model in models]
    assert not torch.equal(gates[0].evidence, gates[1].evidence)  # which is what they were kept for


def test_later_trainings_keep_back_what_the_first_did_whatever_their_seed():
    model = fit(make_counts(), model={"gene_likelihood": "nb"})
    cells, genes = model.trainer.datamodule.heldout_groups, model.module.gene_group.clone()
    np.testing.assert_array_equal(cells, heldout_groups("cells", 60, 0))
    np.testing.assert_array_equal(genes, heldout_groups("genes", 30, 0))
    scvi.settings._seed = 7
    model.train(joint_epochs=1, enable_progress_bar=False)
    assert model.seed_ == 7
    np.testing.assert_array_equal(model.trainer.datamodule.heldout_groups, cells)
    assert torch.equal(model.module.gene_group, genes)


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
