import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scgacl_scvi import pl

PHASES = {"autoencoder": (0, 4), "VaDE": (4, 8), "joint": (8, 12)}


def frame(key, start=0, n=12):
    values = np.linspace(2, 1, n)
    values[:start] = np.nan
    # scvi-tools keeps its history as objects.
    return pd.DataFrame({key: values}, index=pd.RangeIndex(n, name="epoch"), dtype=object)


@pytest.fixture
def history():
    starts = {
        "heldout_nll_validation": 0,
        "reconstruction_loss_train": 0,
        "reconstruction_loss_validation": 0,
        "kl_local_train": 4,
        "adversarial_train": 8,
        "discriminator_train": 8,
        "cell_contrastive_train": 8,
        "type_contrastive_train": 8,
        "kl_weight": 0,
    }
    return {key: frame(key, start) for key, start in starts.items()}


def test_each_kind_of_loss_has_a_panel_with_units(history, drawn):
    axes = pl.training(history, phases=PHASES)
    assert [ax.get_title(loc="left") for ax in axes] == [
        "held-out molecules (validation)",
        "reconstruction",
        "latent space (train)",
        "adversarial (train)",
        "contrastive (train)",
    ]
    assert all(ax.get_xlabel() == "epoch" for ax in axes)
    assert all(ax.get_ylabel() for ax in axes)
    assert "nats / molecule" in axes[0].get_ylabel()
    assert [text.get_text() for text in axes[3].get_legend().get_texts()] == ["generator", "discriminator"]
    assert drawn(axes[0]) > 20


def test_a_curve_begins_with_its_phase(history):
    adversarial = pl.training(history, phases=PHASES)[3]
    generator = adversarial.get_lines()[0]
    np.testing.assert_array_equal(generator.get_xdata(), [8, 9, 10, 11])


def test_validation_is_dashed(history):
    reconstruction = pl.training(history)[1]
    styles = {line.get_label(): line.get_linestyle() for line in reconstruction.get_lines()}
    assert styles == {"train": "-", "validation": "--"}


def test_phases_are_named_and_parted_by_lines(history):
    for ax in pl.training(history, phases=PHASES):
        assert [text.get_text() for text in ax.texts] == list(PHASES)
        borders = [line.get_xdata()[0] for line in ax.get_lines() if line.get_linestyle() == ":"]
        assert borders == [4, 8]


def test_names_select_panels_and_axes_are_used(history):
    _, given = plt.subplots()
    axes = pl.training(history, ["cell_contrastive"], ax=given)
    assert list(axes) == [given]
    assert len(given.get_lines()) == 1


def test_losses_of_other_models_get_a_panel_each():
    axes = pl.training({"classification_loss_train": frame("classification_loss_train")})
    assert axes[0].get_ylabel() == "classification loss"


def test_one_epoch_is_a_visible_point(drawn):
    axes = pl.training({"elbo_train": frame("elbo_train", n=1)})
    assert axes[0].get_lines()[0].get_marker() == "o"


def test_a_loss_that_was_never_computed_is_not_drawn(history):
    history["elbo_train"] = frame("elbo_train", 12)
    assert len(pl.training(history)) == 5


def test_bad_input_is_named_with_a_remedy(history):
    with pytest.raises(ValueError, match="history: nothing was logged"):
        pl.training({"kl_weight": frame("kl_weight")})
    with pytest.raises(ValueError, match=r"names: \['elbo'\] not logged; the history holds"):
        pl.training(history, ["elbo"])
    with pytest.raises(ValueError, match=r"ax: this figure has 5 panel\(s\), got 1; pass 5"):
        pl.training(history, ax=plt.figure().add_subplot())
