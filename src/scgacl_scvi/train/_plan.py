"""One fit in three phases: autoencoder, VaDE, joint adversarial and contrastive training."""

import logging
from collections.abc import Callable
from itertools import chain
from typing import Literal

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import LossOutput
from scvi.train import TrainingPlan
from torch import Tensor

from scgacl_scvi._compat import clip_gradients
from scgacl_scvi.module import VaDE, heldout_loss, nt_xent, sup_con
from scgacl_scvi.module._nonzeros import Nonzeros
from scgacl_scvi.module._sparse_linear import is_worth_it

from ._adversarial import adversarial_loss, discriminator_loss, frozen
from ._in_rows import forget_gradients, in_rows, take_gradients
from ._losses import EpochLogMixin, EpochLosses
from ._mixture_fit import MixtureStart
from ._phases import Phase, Phases
from ._prior_start import start_prior

logger = logging.getLogger(__name__)


class SCGACLTrainingPlan(EpochLogMixin, TrainingPlan):
    """Training of :class:`~scgacl_scvi.module.VaDE` in three phases.

    1. *autoencoder*: reconstruction from (nearly) deterministic z; then the mixture is fitted to the latent means;
    2. *vade*: reconstruction and KL to the mixture;
    3. *joint*: with the adversarial and the two contrastive losses.

    Parameters
    ----------
    module
        The module.
    pretrain_epochs, vade_epochs, joint_epochs
        Epochs of each phase.
    pretrain_lr, vade_lr, joint_lr
        Learning rate of each phase; Adam starts afresh in each.
    weight_adversarial, weight_cell_contrastive, weight_type_contrastive
        Weights of the losses against the negative ELBO of a cell (default: summed over genes).
    temperature, base_temperature
        Of both contrastive losses; the second of the type-level one only.
    update
        ``"fused"``: one step of the generator for each batch, and one of the discriminator if it sees the batch.
        ``"published"``: four updates in turn, each with a fresh z (ELBO; generator against discriminator;
        discriminator; contrasts).
    discriminator_every
        With ``"fused"``, the discriminator sees the first batch of an epoch and every so many. Its losses' part in the
        generator's gradient is larger by as much, as if it had seen all (lazy regularisation: Karras et al. 2020,
        arXiv:1912.04958).
    mask_reconstruction
        Whether reconstructions are shown to the discriminator only where the cell was observed. A full one differs
        from a real profile by its number of zeros, so the generator would be taught to put the zeros back.
    latent_noise
        Standard deviation of the noise on z in the autoencoder phase.
    latent_penalty
        Weight of the squared norm of z in the autoencoder phase, which gives the noise its meaning.
    n_clusters
        Components of the prior; None: by the labels, else by BIC.
    gmm_reg_covar
        Added to each variance of the first mixture.
    betas, discriminator_betas, eps, weight_decay
        Of Adam.
    loading_precision
        Half the precision of a normal prior on the weights from the generator's last hidden layer to the genes. Genes
        of few counts cannot pin theirs down, and would follow noise.
    dispersion_precision
        Half the precision of a normal prior on each gene's log dispersion, around the mean over genes (of batches:
        around the gene's mean, and this around that over genes).
    dispersion_lr_factor
        Learning rate of the dispersions, and of the share of wrong labels, over that of the networks: a fit is too
        short for them otherwise.
    max_grad_norm
        Gradients of the generator are clipped to this norm; None for no clipping.
    anneal_joint
        Whether the learning rates of the joint phase fall to 0, step by step.
    before_joint
        Called before the first batch of the joint phase.
    seed
        Seed of the mixture fit.
    """

    def __init__(
        self,
        module: VaDE,
        *,
        pretrain_epochs: int,
        vade_epochs: int,
        joint_epochs: int,
        pretrain_lr: float = 1e-3,
        vade_lr: float = 1e-3,
        joint_lr: float = 3e-4,
        weight_adversarial: float = 1.0,
        weight_cell_contrastive: float = 1.0,
        weight_type_contrastive: float = 1.0,
        temperature: float = 0.9,
        base_temperature: float = 0.7,
        update: Literal["fused", "published"] = "fused",
        discriminator_every: int = 2,
        mask_reconstruction: bool = True,
        latent_noise: float = 0.1,
        latent_penalty: float = 0.05,
        n_clusters: int | None = None,
        gmm_reg_covar: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        discriminator_betas: tuple[float, float] = (0.5, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        loading_precision: float = 30.0,
        dispersion_precision: float = 0.5,
        dispersion_lr_factor: float = 10.0,
        max_grad_norm: float | None = 50.0,
        anneal_joint: bool = True,
        before_joint: Callable[[], None] | None = None,
        seed: int = 0,
    ):
        super().__init__(module, lr=vade_lr, weight_decay=weight_decay, eps=eps, n_epochs_kl_warmup=None)
        if update not in ("fused", "published"):
            raise ValueError(f"update={update!r} is neither 'fused' nor 'published'.")
        if discriminator_every < 1 or int(discriminator_every) != discriminator_every:
            raise ValueError(
                f"`discriminator_every={discriminator_every}`; give 1 for every batch, or a larger integer."
            )
        self.automatic_optimization = False
        self.phases = Phases(pretrain_epochs, vade_epochs, joint_epochs)
        self.learning_rates = dict(zip(Phase, (pretrain_lr, vade_lr, joint_lr), strict=True))
        self.weights = (weight_adversarial, weight_cell_contrastive, weight_type_contrastive)
        self.temperature, self.base_temperature = temperature, base_temperature
        self.update, self.discriminator_every = update, discriminator_every
        self.mask_reconstruction = mask_reconstruction
        self.latent_noise, self.latent_penalty = latent_noise, latent_penalty
        self.n_clusters, self.gmm_reg_covar = n_clusters, gmm_reg_covar
        self.betas, self.discriminator_betas = betas, discriminator_betas
        self.loading_precision, self.dispersion_precision = loading_precision, dispersion_precision
        self.dispersion_lr_factor = dispersion_lr_factor
        self.max_grad_norm = max_grad_norm
        self.anneal_joint = anneal_joint
        self.before_joint = before_joint
        self.seed = seed
        self.mixture_start: MixtureStart | None = None
        self._phase, self._epoch_in_phase = self.phases.at(0)
        self._losses = EpochLosses()
        self._heldout: list[Tensor] = []

    def initialize_train_metrics(self) -> None:
        """No metric objects: losses are summed by :class:`EpochLosses`, and each object costs Lightning time."""

    initialize_val_metrics = initialize_train_metrics

    # --- optimisers and phases ---------------------------------------------------------------------------------

    def configure_optimizers(self):
        """Two Adams: encoder, generator and prior; discriminator."""
        single = [self.module.log_theta, self.module.prior.slip_logit]
        apart = {*self.module.discriminator.parameters(), *single}
        generator = [p for p in self.module.parameters() if p.requires_grad and p not in apart]
        dispersions = [p for p in single if p.requires_grad]
        dispersion = {"params": dispersions, "factor": self.dispersion_lr_factor}
        common = {
            "lr": self.learning_rates[self._phase],
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "fused": True,
        }
        return [
            torch.optim.Adam([{"params": in_rows(generator)}, dispersion], betas=self.betas, **common),
            torch.optim.Adam(in_rows(self.module.discriminator.parameters()), betas=self.discriminator_betas, **common),
        ]

    def on_train_epoch_start(self) -> None:
        """Enter the phase of this epoch; before the first epoch of the VaDE phase, fit the prior."""
        self._phase, self._epoch_in_phase = self.phases.at(self.current_epoch)
        if self._phase is not Phase.AUTOENCODER and not self.module.prior.fitted:
            self._start_prior()
        if self._epoch_in_phase == 0:
            if self._phase is Phase.JOINT and self.before_joint is not None:
                self.before_joint()
            for optimizer in self.optimizers():
                optimizer.optimizer.state.clear()
            self._set_rates(1.0)

    def _set_rates(self, share: float) -> None:
        """Set the learning rates to a share of those of the phase."""
        for optimizer in self.optimizers():
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rates[self._phase] * group.get("factor", 1.0) * share

    def _start_prior(self) -> None:
        """Fit the mixture to the latent means of the training cells."""
        data = self.trainer.datamodule
        # Without a phase before it, the joint one would show what is kept back for the gate.
        joint = self._phase is Phase.JOINT
        loader = data.training_cells(held_out=True) if joint else data.train_dataloader()
        batches = (
            self.transfer_batch_to_device(data.on_before_batch_transfer(batch, 0), self.device, 0) for batch in loader
        )
        settings = {"n_clusters": self.n_clusters, "reg_covar": self.gmm_reg_covar, "seed": self.seed}
        self.mixture_start = start_prior(self.module, batches, **settings)

    # --- losses ------------------------------------------------------------------------------------------------

    def _generate(self, batch: dict[str, Tensor]) -> tuple[dict, dict]:
        inputs = self.module._get_inference_input(batch)
        if self._phase is Phase.AUTOENCODER:
            inferred = self.module.encode(**inputs)
            z = inferred["qz"].loc
            inferred["z"] = z + self.latent_noise * torch.randn_like(z) if self.latent_noise and self.training else z
        else:
            inferred = self.module.inference(**inputs)
        own = self.module._get_generative_input(batch, inferred)
        return inferred, self.module.generative(**own, distribution=False)

    def _elbo(self, batch: dict[str, Tensor], inferred: dict, generated: dict) -> LossOutput:
        if self._phase is not Phase.AUTOENCODER:
            return self.module.loss(batch, inferred, generated)
        reconstruction = self.module.reconstruction_loss(
            batch[REGISTRY_KEYS.X_KEY], inferred["profile"], generated, inferred["visible"], inferred["nonzeros"]
        )
        penalty = self.latent_penalty * inferred["qz"].loc.square().sum(-1)
        return LossOutput(
            (reconstruction + penalty).mean(),
            reconstruction_loss=reconstruction,
            kl_local=self.module.kl_standard(inferred["qz"]),
        )

    def _profiles(self, inferred: dict, generated: dict) -> tuple[Tensor, Tensor]:
        """Real and reconstructed lognorm profile of each cell, as the discriminator sees them."""
        real = inferred["profile"]
        fake = self.module.reconstructed_profile(generated)
        return real, fake * (real > 0) if self.mask_reconstruction else fake

    def _thin_profiles(self, inferred: dict, generated: dict) -> tuple[Tensor, Tensor, Nonzeros | None]:
        """:meth:`_profiles`, where that is faster only their values at the non-zeros, and these."""
        nonzeros = inferred["nonzeros"]
        if not (self.mask_reconstruction and is_worth_it(nonzeros)):
            return *self._profiles(inferred, generated), None
        fake = self.module.reconstructed_profile({"scale": nonzeros.of(generated["scale"])})
        return nonzeros.of(inferred["profile"]), fake, nonzeros

    def _contrasts(
        self, real: tuple, fake: tuple, classes: Tensor, strata: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cell-level and type-level contrastive loss, from the discriminator's outputs; within strata only."""
        # A growing random share of the reconstructions joins the type-level contrast: ten steps of .09 from .1.
        steps = 1 + self._epoch_in_phase // max(1, self.phases.joint // 10)
        share = torch.rand(len(classes), device=classes.device) < min(1.0, 0.1 + 0.09 * steps)
        kinds, codes = torch.cat([real[2], fake[2][share]]), torch.cat([classes, classes[share]])
        within = None if strata is None else torch.cat([strata, strata[share]])
        return (
            nt_xent(real[1], fake[1], self.temperature, strata),
            sup_con(kinds, codes, self.temperature, self.base_temperature, within),
        )

    # --- updates -----------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One batch, in the way of the current phase."""
        generator, discriminator = self.optimizers()
        if self._phase is not Phase.JOINT:
            inferred, generated = self._generate(batch)
            elbo = self._elbo(batch, inferred, generated)
            self._step(elbo.loss, generator, priors=True)
            self._losses.add("train", elbo)
            return elbo.loss.detach()
        batches = max(1, self.trainer.num_training_batches)
        if self.anneal_joint:
            self._set_rates(1 - (self._epoch_in_phase + batch_idx / batches) / self.phases.joint)
        if self.update == "published":
            elbo, *others = self._published_update(batch, generator, discriminator)
        else:
            seen = -(-batches // self.discriminator_every)
            share = 0.0 if batch_idx % self.discriminator_every else batches / seen
            elbo, *others = self._fused_update(batch, generator, discriminator, share)
        self._losses.add("train", elbo, *others)
        return elbo.loss.detach()

    def _fused_update(self, batch, generator, discriminator, share: float) -> tuple:
        weights = self.weights
        inferred, generated = self._generate(batch)
        elbo = self._elbo(batch, inferred, generated)
        if not (share and any(weights)):
            self._step(elbo.loss, generator, priors=True)
            return (elbo,)
        classes, strata = self.module.classes(inferred, batch), self.module.strata(batch)
        real, fake, where = self._thin_profiles(inferred, generated)

        # Both losses look at one pass through the discriminator; the generator's ends at the reconstructed profile.
        reference, judged, first_layer = self.module.discriminator.judge_both(real, fake, where)
        adversarial = adversarial_loss(judged[0])
        contrasts = self._contrasts(reference, judged, classes, strata)
        discriminating = discriminator_loss(reference[0], judged[0])
        contrast = weights[1] * contrasts[0] + weights[2] * contrasts[1]
        slope = first_layer.slope(weights[0] * adversarial + contrast)
        self._step(elbo.loss + share * (fake * slope).sum(), generator, priors=True)
        self._step(weights[0] * discriminating + contrast, discriminator)
        return elbo, adversarial, discriminating, *contrasts

    def _published_update(self, batch, generator, discriminator) -> tuple:
        weight_adversarial, weight_cell, weight_type = self.weights
        network = self.module.discriminator
        elbo = self._elbo(batch, *self._generate(batch))
        self._step(elbo.loss, generator, priors=True)

        # A loss of weight 0 takes no step: Adam would move on by its momentum.
        adversarial = discriminating = cell = kind = torch.full_like(elbo.loss.detach(), torch.nan)
        if weight_adversarial:
            _, fake = self._profiles(*self._generate(batch))
            with frozen(network):
                adversarial = adversarial_loss(network(fake)[0])
            self._step(weight_adversarial * adversarial, generator)
            with torch.no_grad():
                real, fake = self._profiles(*self._generate(batch))
            discriminating = discriminator_loss(network(real)[0], network(fake)[0])
            self._step(weight_adversarial * discriminating, discriminator)
        if weight_cell or weight_type:
            inferred, generated = self._generate(batch)
            real, fake = self._profiles(inferred, generated)
            classes = self.module.classes(inferred, batch)
            cell, kind = self._contrasts(network(real), network(fake), classes, self.module.strata(batch))
            self._step(weight_cell * cell + weight_type * kind, generator, discriminator)
        return elbo, adversarial, discriminating, cell, kind

    def _step(self, loss: Tensor, *optimizers, priors: bool = False) -> None:
        """Step of the optimisers down a loss, to which ``priors`` adds those of loadings and dispersions."""
        parameters = [[p for group in each.param_groups for p in group["params"]] for each in optimizers]
        forget_gradients(chain(*parameters))
        self.manual_backward(loss)
        if priors:  # the prior of all cells, shared out among them
            precisions = self.loading_precision, self.dispersion_precision
            self.module.add_prior_gradients(*(precision / self.n_obs_training for precision in precisions))
        take_gradients(chain(*parameters))
        for optimizer, own in zip(optimizers, parameters, strict=True):
            if self.max_grad_norm is not None:
                clip_gradients(own, self.max_grad_norm)
            optimizer.step()

    # --- validation --------------------------------------------------------------------------------------------

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Losses on validation cells, and the predictive density of the molecules that are held out from them."""
        inferred, generated = self._generate(batch)
        elbo = self._elbo(batch, inferred, generated)
        others = ()
        if self._phase is Phase.JOINT and any(self.weights):
            real, fake = self._profiles(inferred, generated)
            reference, judged = self.module.discriminator(real), self.module.discriminator(fake)
            classes = self.module.classes(inferred, batch)
            discriminating = discriminator_loss(reference[0], judged[0])
            contrasts = self._contrasts(reference, judged, classes, self.module.strata(batch))
            others = (adversarial_loss(judged[0]), discriminating, *contrasts)
        self._losses.add("validation", elbo, *others)
        self._heldout.append(heldout_loss(self.module, batch))
