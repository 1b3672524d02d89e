"""``model.train()``."""

import logging
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

from scvi.train import TrainRunner

from scgacl_scvi._compat import use_distributed_sampler, without_lightning_noise
from scgacl_scvi._keys import HELDOUT
from scgacl_scvi.module import VaDE
from scgacl_scvi.train import CellSplitter, EpochLogger, Phase, Phases, RestoreBest, SCGACLTrainingPlan
from scgacl_scvi.train._gate_fit import fit_gate, refresh_gate
from scgacl_scvi.train._own_dispersion import MAX_CELLS, fit_own_dispersions
from scgacl_scvi.train._query import fit_new_batches, only_new_trainable
from scgacl_scvi.train._residual_fit import MAX_CELLS as MAX_RESIDUAL_CELLS
from scgacl_scvi.train._residual_fit import fit_residuals
from scgacl_scvi.train._strata_fit import fit_strata

from ._checks import check_has_data
from ._fingerprint import data_fingerprint
from ._loading import NO_DATAMODULE
from ._presets import PRESETS, WITH_BATCHES, default_schedule
from ._seed import current_seed, flushed_denormals, seeded

logger = logging.getLogger(__name__)


class TrainingMixin:
    """Training in three phases."""

    _training_plan_cls = SCGACLTrainingPlan
    _data_splitter_cls = CellSplitter
    _train_runner_cls = TrainRunner
    module: VaDE

    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        batch_size: int | None = None,
        early_stopping: bool | None = None,
        *,
        pretrain_epochs: int | None = None,
        vade_epochs: int | None = None,
        joint_epochs: int | None = None,
        pretrain_lr: float | None = None,
        vade_lr: float | None = None,
        joint_lr: float | None = None,
        vade_batch_size: int | None = None,
        joint_batch_size: int | None = None,
        weight_adversarial: float | None = None,
        weight_cell_contrastive: float | None = None,
        weight_type_contrastive: float | None = None,
        temperature: float | None = None,
        update: Literal["fused", "published"] | None = None,
        gate_genes: bool | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs,
    ) -> None:
        """Train the model; everything left at None suits the size of the data (or is the preset's).

        After :meth:`load_query_data` only what concerns new batches is trained, by the evidence bound.

        Parameters
        ----------
        max_epochs
            Epochs of all phases together, shared out as the default shares them. Not with the three below.
        accelerator, devices
            As in scvi-tools.
        train_size, validation_size, shuffle_set_split
            Shares of the cells. A tenth of the molecules of validation cells (default: a tenth of the cells) is never
            trained on; by how well they are predicted the epoch is chosen that the joint phase starts from, and the one
            of that phase whose weights are kept. The first two phases see nothing of validation cells, the joint one
            their other molecules; cells in neither share are never seen. The paper preset trains on all cells.
        batch_size
            Cells in a batch.
        early_stopping
            Whether to stop when held-out molecules have not been predicted better for a while in the joint phase. By
            default it has a fixed length, in which its learning rates fall to 0.
        pretrain_epochs, vade_epochs, joint_epochs
            Epochs of the autoencoder, VaDE and joint phase. When the prior is fitted already (a second call), the first
            two are 0.
        pretrain_lr, vade_lr, joint_lr
            Learning rates; that of the joint phase falls to 0 in its course (not with the paper preset).
        vade_batch_size, joint_batch_size
            Batch sizes of the first two phases and of the joint one, where they differ from ``batch_size``.
        weight_adversarial, weight_cell_contrastive, weight_type_contrastive
            Weights of the losses of the joint phase, against the negative ELBO of a cell.
        temperature
            Of both contrastive losses.
        update
            ``"fused"`` or ``"published"`` updates of the joint phase.
        gate_genes
            Whether a fifth of the entries is kept from the first two phases, to find out for each gene whether cluster
            or generator predict it better than its own mean; where not, its mean is what :meth:`get_imputed_expression`
            and the other getters take. The joint phase then trains on all entries. Without it, imputed values correlate
            genes that have nothing in common. Default True for count likelihoods; a later training of a model keeps
            what the first one chose.
        plan_kwargs
            Further arguments of :class:`~scgacl_scvi.train.SCGACLTrainingPlan`.
        **trainer_kwargs
            Arguments of :class:`scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If ``max_epochs`` is given with epochs of a phase, early stopping without validation cells, or
            ``gate_genes=True`` where there is nothing to judge genes by.
        """
        if "datamodule" in trainer_kwargs:
            raise NotImplementedError(NO_DATAMODULE)
        check_has_data(self, "only a model with data can be trained")
        for argument, value in (
            ("batch_size", batch_size),
            ("vade_batch_size", vade_batch_size),
            ("joint_batch_size", joint_batch_size),
        ):
            if value is not None and value < 2:
                raise ValueError(f"`{argument}={value}`; give at least 2, as batch normalisation and contrasts need.")
        for argument, value in (("pretrain_lr", pretrain_lr), ("vade_lr", vade_lr), ("joint_lr", joint_lr)):
            if value is not None and not value > 0:
                raise ValueError(f"`{argument}={value}`; a learning rate is above 0.")
        if train_size is not None and not 0 < train_size <= 1:
            raise ValueError(f"`train_size={train_size}`; give a share above 0 and at most 1.")
        preset = PRESETS[self.preset]
        schedule = default_schedule(self.adata.n_obs)
        epochs = _epochs(
            preset.epochs or schedule.epochs,
            (pretrain_epochs, vade_epochs, joint_epochs),
            max_epochs,
            fitted=bool(self.module.prior.fitted),
        )
        of_query = self.reference_categories_ is not None
        if of_query:
            if not any(self._new_categories()):
                logger.warning(
                    "The reference knows all batches of these data: there is nothing to train, it is used as it is."
                )
                return
            epochs = _query_epochs(schedule.epochs, max_epochs, vade_epochs, (pretrain_epochs, joint_epochs))
        given_size = batch_size or preset.batch_size
        early_batch = vade_batch_size or given_size or schedule.batch_size
        joint_batch = joint_batch_size or given_size or schedule.joint_batch_size
        batch_sizes = dict(zip(Phase, (early_batch, early_batch, joint_batch), strict=True))
        seed = self.seed_ = current_seed()
        hold_out = bool(self.module.gate.fitted) if of_query else self._holds_out(gate_genes)
        n_before = 0 if self.history is None else len(self.history["train_loss"])
        splitter = self._data_splitter_cls(
            self.adata_manager,
            shuffle_cells=preset.shuffle,
            batch_sizes=batch_sizes,
            phases=epochs,
            seed=seed,
            train_size=train_size or preset.train_size,
            validation_size=validation_size,
            shuffle_set_split=shuffle_set_split,
            hold_out=hold_out,
            heldout_seed=self.heldout_seed_,
            whole_entries=self.module.gene_likelihood == "normal",
        )
        rates = preset.learning_rates or schedule.learning_rates
        given = {
            "pretrain_lr": pretrain_lr or rates[0],
            "vade_lr": vade_lr or rates[1],
            "joint_lr": joint_lr or rates[2],
            "weight_adversarial": weight_adversarial,
            "weight_cell_contrastive": weight_cell_contrastive,
            "weight_type_contrastive": weight_type_contrastive,
            "temperature": temperature,
            "update": update,
            **(plan_kwargs or {}),
            **({"weight_decay": 0.0} if of_query else {}),  # decay would move what is frozen
        }
        cells = (
            lambda: splitter.training_cells(held_out=True),
            splitter.unseen_cells,
            lambda: splitter.training_cells(held_out=False),
        )
        # After the fit of the prior the posterior's variances settle first; where the curve is flat, an epoch from
        # before that would cost more on the training cells than it shows on the others.
        best = RestoreBest(first_epoch=epochs.autoencoder + epochs.vade // 2)

        def before_joint() -> None:
            best.restore(self.module)
            if hold_out:
                fit_gate(self.module, *cells)
                self.saw_all_entries_ = True  # from here on; a training that broke off earlier leaves them to the next

        plan = self._training_plan_cls(
            self.module,
            pretrain_epochs=epochs.autoencoder,
            vade_epochs=epochs.vade,
            joint_epochs=epochs.joint,
            n_clusters=self.n_clusters or self.module.n_labels or None,
            before_joint=before_joint,
            seed=seed,
            **(WITH_BATCHES if self.module.n_batch > 1 else {})
            | {**preset.plan, **{key: value for key, value in given.items() if value is not None}},
        )
        if self.module.kmeans is not None and not self.module.prior.fitted:
            self.module.fit_classes(self._lognorm_matrix(), self.n_clusters or self.module.n_labels, seed)

        callbacks = [*trainer_kwargs.pop("callbacks", [])]
        if splitter.n_val:
            callbacks.append(best)
            trainer_kwargs.setdefault("check_val_every_n_epoch", 1)
        if not (trainer_kwargs.get("log_save_dir") or use_distributed_sampler(trainer_kwargs.get("strategy"))):
            trainer_kwargs.setdefault("logger", EpochLogger())
        runner = self._train_runner_cls(
            self,
            training_plan=plan,
            data_splitter=splitter,
            max_epochs=epochs.total,
            accelerator=accelerator,
            devices=devices,
            callbacks=callbacks,
            **{
                **_early_stopping(early_stopping, splitter.n_val, epochs, trainer_kwargs),
                "log_every_n_steps": max(1, min(10, splitter.n_train // max(batch_sizes.values()))),
                "reload_dataloaders_every_n_epochs": 1,  # the joint phase sees other entries, in other batches
                **trainer_kwargs,
            },
        )
        if not of_query:
            self.module.residual.fitted.fill_(False)
            if hold_out or gate_genes is False:
                self.module.gate.reset()  # a gate is kept by a later training, which has nothing to judge genes by
            self.saw_all_entries_ |= not hold_out
        elif self.history is None:
            self.is_trained_ = False  # else scvi-tools would look for the history of a first training
        self.module.train()  # a second call finds it in evaluation mode
        frozen = only_new_trainable(self.module, self.reference_categories_) if of_query else nullcontext()
        with frozen, seeded(seed), flushed_denormals(), without_lightning_noise():
            runner()
        # Fewer than asked for where training was stopped early; all, as far as is known, where nothing was logged.
        n = len((self.history or {}).get("train_loss", range(n_before + epochs.total)))
        new = {
            phase: (first + n_before, min(last + n_before, n))
            for phase, (first, last) in epochs.ranges().items()
            if first + n_before < n
        }
        old = getattr(self, "phases_", {})
        self.phases_ = {phase: (old.get(phase, span)[0], span[1]) for phase, span in (old | new).items()}
        if plan.mixture_start is not None:
            self.bic_ = plan.mixture_start.bic
        self.best_epoch_ = best.best_epoch if splitter.n_val else None
        self.data_fingerprint_ = data_fingerprint(self.adata_manager)
        if of_query:
            if hold_out:
                fit_new_batches(self.module, self.reference_categories_[0], *cells)
            return
        seen = partial(splitter.seen_cells, validation=bool(epochs.joint))
        if self.module.gate.fitted:
            refresh_gate(self.module, seen)
        elif hold_out:
            fit_gate(self.module, *cells)
        if self.module.gate.fitted and self.module.gene_likelihood == "nb":  # a "zinb" has a dropout curve for zeros
            fit_own_dispersions(self.module, seen(at_most=MAX_CELLS))
        if self.module.gene_likelihood == "nb":
            # Not of validation cells, whose withheld molecules the gene report predicts.
            fit_residuals(self.module, splitter.seen_cells(validation=False, at_most=MAX_RESIDUAL_CELLS))
        if self.module.n_strata > 1 and self.module.gene_likelihood != "normal":
            fit_strata(self.module, seen())
        with seeded(seed):
            self._fit_dropout()

    def _holds_out(self, gate_genes: bool | None) -> bool:
        """Whether to keep entries from training, for the gate of each gene."""
        if gate_genes and self.module.gene_likelihood == "normal":
            raise ValueError("`gate_genes=True` needs a count likelihood ('nb' or 'zinb'); this model's is 'normal'.")
        if gate_genes and self.saw_all_entries_:
            raise ValueError(
                "`gate_genes=True`, but an earlier training of this model saw all entries: none is left to judge genes "
                "by. Make a new model, and train it with the gate from the start."
            )
        if gate_genes is None:
            gate_genes = self.module.gene_likelihood != "normal" and not self.saw_all_entries_
            if self.saw_all_entries_ and self.module.gene_likelihood != "normal" and not self.module.gate.fitted:
                logger.warning(
                    "An earlier training of this model saw all entries and left no gate: every gene follows the "
                    "generator, and imputed values invent correlation. Make a new model to have it."
                )
        return gate_genes


def _epochs(default: tuple[int, int, int], given: tuple, max_epochs: int | None, *, fitted: bool) -> Phases:
    """Epochs of each phase from what the user gave."""
    if fitted:
        default = (0, 0, default[2])
    if max_epochs is None:
        phases = Phases(*(d if g is None else g for d, g in zip(default, given, strict=True)))
        if not phases.total:
            raise ValueError("All phases have 0 epochs; give at least one of them an epoch.")
        return phases
    if any(g is not None for g in given):
        raise ValueError("Give either `max_epochs` or epochs of single phases (`pretrain_epochs`, ...), not both.")
    if max_epochs < 1:
        raise ValueError(f"`max_epochs={max_epochs}`; give at least 1.")
    shares = [max(int(max_epochs >= 3 and d > 0), d * max_epochs // max(1, sum(default))) for d in default]
    return Phases(shares[0], shares[1], max_epochs - shares[0] - shares[1])


def _query_epochs(default: tuple[int, int, int], max_epochs: int | None, vade_epochs: int | None, others) -> Phases:
    """Epochs of a query: the evidence bound alone, with a prior that is fitted."""
    if any(others):
        raise ValueError("A query is trained by the evidence bound alone; give `max_epochs` or `vade_epochs`.")
    if max_epochs is not None and vade_epochs is not None:
        raise ValueError("Give either `max_epochs` or `vade_epochs`, not both.")
    n = default[1] if max_epochs is None and vade_epochs is None else max_epochs if vade_epochs is None else vade_epochs
    if n < 1:
        raise ValueError(f"A query was to be trained for {n} epochs; give at least 1.")
    return Phases(0, n, 0)


def _early_stopping(wanted: bool | None, n_val: int, epochs: Phases, trainer_kwargs: dict) -> dict:
    """Trainer arguments of early stopping, which begins with the joint phase."""
    if wanted and not n_val:
        raise ValueError("`early_stopping=True` needs validation cells; lower `train_size` or give `validation_size`.")
    if not wanted or not epochs.joint or use_distributed_sampler(trainer_kwargs.get("strategy")):
        return {}
    return {
        "early_stopping": True,
        "early_stopping_monitor": f"{HELDOUT}_validation",
        "early_stopping_patience": max(5, epochs.joint // 4),
        "early_stopping_warmup_epochs": epochs.autoencoder + epochs.vade,
    }
