"""Settings of the two presets: ours, and the published procedure."""

from dataclasses import dataclass
from typing import Any

DEFAULT, PAPER = "default", "paper"


@dataclass(frozen=True)
class Preset:
    """What a preset says where the user says nothing.

    Attributes
    ----------
    module
        Arguments of :class:`~scgacl_scvi.module.VaDE`.
    plan
        Arguments of :class:`~scgacl_scvi.train.SCGACLTrainingPlan`.
    train_size, shuffle
        Of the fit.
    """

    module: dict[str, Any]
    plan: dict[str, Any]
    train_size: float
    shuffle: bool
    batch_size: int | None = None
    epochs: tuple[int, int, int] | None = None
    learning_rates: tuple[float, float, float] | None = None


PRESETS = {
    DEFAULT: Preset(
        module={
            "n_hidden": (128, 128),
            "n_hidden_discriminator": (256, 256),
            "dropout_rate": 0.1,
        },
        plan={},
        train_size=0.9,
        shuffle=True,
    ),
    PAPER: Preset(
        module={
            "n_hidden": (500, 500, 2000),
            "n_hidden_discriminator": (500, 500, 2000),
            "dropout_rate": 0.0,
            "hide_rate": 0.0,
        },
        plan={
            "weight_adversarial": 1.0,
            "weight_cell_contrastive": 1.0,
            "weight_type_contrastive": 1.0,
            "update": "published",
            "mask_reconstruction": False,
            "latent_noise": 0.0,
            "latent_penalty": 0.0,
            "gmm_reg_covar": 1e-5,
            "betas": (0.5, 0.99),
            "weight_decay": 2.5e-5,
            "loading_precision": 0.0,
            "dispersion_precision": 0.0,
            "dispersion_lr_factor": 1.0,
            "max_grad_norm": None,
            "anneal_joint": False,
        },
        train_size=1.0,
        shuffle=False,
        batch_size=32,
        epochs=(100, 100, 100),
        learning_rates=(1e-3, 1e-3, 1e-4),
    ),
}


WITH_BATCHES = {"latent_noise": 0.25, "latent_penalty": 0.0625}
"""Arguments of the plan where there are batches: an autoencoder with next to no noise holds them in its latent space,
though the generator is told of them, and the mixture is then fitted to clusters of single batches."""


@dataclass(frozen=True)
class Schedule:
    """Epochs, learning rates and batch size of a fit."""

    epochs: tuple[int, int, int]
    learning_rates: tuple[float, float, float]
    batch_size: int
    joint_batch_size: int


def default_schedule(n_cells: int) -> Schedule:
    """Schedule of the default preset for the size of the data.

    The number of updates, not of epochs, is what learning needs: beyond a few thousand cells epochs fall as their
    number rises, and batches grow.
    """
    batch_size = 64 if n_cells <= 10_000 else 128 if n_cells <= 100_000 else 256
    # Below 1,500 cells more epochs, up to twice as many; above 5,000 fewer.
    share = max(1.0, min(2.0, 1500 / n_cells)) * min(1.0, (5000 / n_cells) ** 0.7)
    epochs = tuple(max(minimum, round(full * share)) for full, minimum in ((15, 2), (20, 4), (20, 5)))
    return Schedule(epochs, (2e-3, 2e-3, 3e-3), batch_size, joint_batch_size=max(128, batch_size))
