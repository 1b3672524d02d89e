"""The model: scGACL as scvi-tools users know their models."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import (
    CategoricalJointObsField,
    CategoricalObsField,
    NumericalJointObsField,
    NumericalObsField,
)
from scvi.model.base import BaseModelClass, VAEMixin

from scgacl_scvi._keys import INPUT_SCALE_ARG, STRATUM
from scgacl_scvi.module import VaDE
from scgacl_scvi.train import CellLoader, registered_matrix
from scgacl_scvi.train._loader import heldout_groups
from scgacl_scvi.train._mixture_fit import MAX_CLUSTERS

from ._checks import check_choice, check_complete, check_key, check_numeric, check_shape, check_strata
from ._dropout import DropoutMixin
from ._fields import BatchField, ExpressionField, LabelsField, StratumField, strata_of
from ._gene_report import GeneReportMixin
from ._imputation import ImputationMixin
from ._inherited import InheritedMixin
from ._likelihood_choice import LikelihoodChoice, choose_likelihood
from ._loading import LoadingMixin, refuse_datamodule
from ._mudata import MuDataMixin
from ._presets import DEFAULT, PAPER, PRESETS
from ._query import QueryMixin
from ._seed import current_seed, seeded
from ._statistics import data_statistics
from ._training import TrainingMixin
from ._uncertainty import UncertaintyMixin

logger = logging.getLogger(__name__)

GeneLikelihood = Literal["auto", "nb", "zinb", "normal"]


class SCGACL(
    ImputationMixin,
    DropoutMixin,
    UncertaintyMixin,
    GeneReportMixin,
    TrainingMixin,
    LoadingMixin,
    MuDataMixin,
    InheritedMixin,
    VAEMixin,
    QueryMixin,
    BaseModelClass,
):
    """Imputation of single-cell RNA-seq by a VaDE trained against a contrastive, multi-task discriminator.

    Rebuilds scGACL (doi:10.1093/bib/bbag018). The default keeps its parts (mixture prior, adversarial, cell-level and
    type-level contrastive loss, dropout identification) around a count likelihood, and fills zeros with the posterior
    mean of the expression; ``preset="paper"`` is the published procedure.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`.
    registry
        Registry of a saved model, instead of ``adata``.
    n_latent
        Dimensionality of the latent space, at least 2.
    n_clusters
        Components of the mixture prior. None: the number of labels, or without labels the number from 2 to 20 with
        the lowest BIC when the mixture is fitted. With labels, at least their number.
    gene_likelihood
        ``"nb"`` (UMI counts), ``"zinb"`` (counts with dropout), ``"normal"`` (lognorm values, observed entries only),
        or ``"auto"``: ``"zinb"`` if the data hold more zeros than a negative binomial explains, else ``"nb"``; see
        :attr:`likelihood_choice_`. Lognorm input and ``preset="paper"`` need ``"normal"``.
    n_hidden
        Nodes of each hidden layer of the encoder (the generator has them in reverse); default 128, 128.
    n_hidden_discriminator
        Nodes of each hidden layer of the discriminator; default 256, 256.
    dropout_rate
        Dropout in the encoder; default 0.1.
    dispersion
        ``"gene"``: one inverse dispersion a gene; ``"gene-batch"``: one a gene and batch, as in scvi-tools. None: with
        batches the second for ``"nb"``, else the first. One for all batches have in any case genes that the gate leaves
        at their own mean and, with ``"zinb"``, zeros, which the dropout curve explains.
    encode_covariates
        Whether batches and covariates enter the encoder, too, not the generator alone; False as in scvi-tools.
    hide_rate
        Share of the profile hidden from the encoder while training, all of it being predicted nevertheless; default
        0.2, with ``"zinb"`` 0.5.
    preset
        ``"default"`` or ``"paper"``: what every argument above that is None, and those of :meth:`train`, stand for.

    Raises
    ------
    ValueError
        If an argument contradicts the registered data or the preset.

    Examples
    --------
    >>> SCGACL.setup_anndata(adata)
    >>> model = SCGACL(adata)
    >>> model.train()
    >>> imputed = model.get_imputed_expression()  # also in adata.layers["scgacl"]
    >>> sc.pl.umap(adata, color="CD3E", layer="scgacl")

    Notes
    -----
    Initial weights, training and the getters of imputed values draw from ``scvi.settings.seed`` (0 if None) and leave
    the global generators alone; two models of the same data agree bit for bit on a CPU. Getters inherited from
    scvi-tools that sample (``get_elbo``, ``get_normalized_expression``, ...) use the global generators, as there.
    """

    _module_cls = VaDE
    _data_loader_cls = CellLoader

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict | None = None,
        n_latent: int = 10,
        n_clusters: int | None = None,
        gene_likelihood: GeneLikelihood = "auto",
        n_hidden: int | Sequence[int] | None = None,
        n_hidden_discriminator: int | Sequence[int] | None = None,
        dropout_rate: float | None = None,
        hide_rate: float | None = None,
        preset: Literal["default", "paper"] = DEFAULT,
        dispersion: Literal["gene", "gene-batch"] | None = None,
        encode_covariates: bool = False,
    ):
        refuse_datamodule(registry)
        super().__init__(adata, registry)
        check_choice("preset", preset, tuple(PRESETS))
        check_choice("gene_likelihood", gene_likelihood, ("auto", "nb", "zinb", "normal"))
        if n_latent < 2 or int(n_latent) != n_latent:
            raise ValueError(f"`n_latent={n_latent}`; give a whole number of at least 2, as a mixture needs.")
        for argument, rate in (("dropout_rate", dropout_rate), ("hide_rate", hide_rate)):
            if rate is not None and not 0 <= rate < 1:
                raise ValueError(f"`{argument}={rate}`; give a share from 0 to below 1.")
        setup = self.registry_["setup_args"]
        input_scale = setup.get(INPUT_SCALE_ARG, "counts")
        n_labels = self.summary_stats.n_labels - 1 if setup.get("labels_key") else 0
        labels_state = self.registry_["field_registries"][REGISTRY_KEYS.LABELS_KEY]["state_registry"]
        self.label_names_ = [str(name) for name in labels_state["categorical_mapping"]][:n_labels]
        _check_clusters(n_clusters, n_labels, preset, None if adata is None else adata.n_obs)
        check_choice("dispersion", dispersion, (None, "gene", "gene-batch"))
        self.stratum_names_ = strata_of(self.registry_)
        if self.stratum_names_ and preset == PAPER:
            raise ValueError("`stratify_by` is no part of the published procedure; leave it out, or `preset='paper'`.")

        counts, library = (None, None) if adata is None else self._counts_and_library()
        self.likelihood_choice_ = None
        if preset == PAPER or input_scale == "lognorm":
            why = 'preset="paper"' if preset == PAPER else 'input_scale="lognorm"'
            if gene_likelihood not in ("auto", "normal"):
                raise ValueError(f"{why} needs `gene_likelihood='normal'` (or 'auto'), not {gene_likelihood!r}.")
            gene_likelihood = "normal"
        elif gene_likelihood == "auto":
            if adata is None:
                raise ValueError("`gene_likelihood='auto'` needs `adata` to choose by; give 'nb' or 'zinb'.")
            choice: LikelihoodChoice = choose_likelihood(counts, library)
            logger.info(str(choice))
            self.likelihood_choice_ = choice.to_dict()
            gene_likelihood = choice.gene_likelihood

        several = self.summary_stats.n_batch > 1 and gene_likelihood == "nb"
        dispersion = dispersion or ("gene-batch" if several else "gene")
        if dispersion == "gene-batch" and gene_likelihood == "normal":
            raise ValueError("`dispersion='gene-batch'` needs a count likelihood ('nb' or 'zinb'), not 'normal'.")
        defaults = {"hide_rate": 0.5 if gene_likelihood == "zinb" else 0.2, **PRESETS[preset].module}
        chosen = {
            "n_hidden": n_hidden,
            "n_hidden_discriminator": n_hidden_discriminator,
            "dropout_rate": dropout_rate,
            "hide_rate": hide_rate,
        }
        chosen = {key: defaults[key] if value is None else value for key, value in chosen.items()}
        for key in ("n_hidden", "n_hidden_discriminator"):
            chosen[key] = (chosen[key],) * 2 if isinstance(chosen[key], int) else tuple(chosen[key])

        self.n_clusters = n_clusters
        self.preset = preset
        self.seed_ = current_seed()
        with seeded(self.seed_):
            self.module = self._module_cls(
                self.summary_stats.n_vars,
                n_labels=n_labels,
                n_strata=max(1, len(self.stratum_names_)),
                n_batch=self.summary_stats.n_batch,
                n_cats_per_cov=self._n_cats_per_cov(),
                n_continuous_cov=self.summary_stats.get("n_extra_continuous_covs", 0),
                n_latent=n_latent,
                n_components=n_clusters or n_labels or MAX_CLUSTERS,
                gene_likelihood=gene_likelihood,
                dispersion=dispersion,
                encode_covariates=encode_covariates,
                input_scale=input_scale,
                use_size_factor=setup.get("size_factor_key") is not None,
                preset=preset,
                **chosen,
            )
        # What training never sees, whatever seeds later calls have.
        self.heldout_seed_ = self.seed_
        self.saw_all_entries_ = False
        self.module.gene_group.copy_(torch.as_tensor(heldout_groups("genes", self.summary_stats.n_vars, self.seed_)))
        if counts is not None:
            self.module.set_data_statistics(*data_statistics(counts, library, gene_likelihood, input_scale))
        self._model_summary_string = (
            f"SCGACL ({preset} preset): gene_likelihood: {gene_likelihood}, n_latent: {n_latent}, n_clusters: "
            f"{n_clusters or n_labels or 'by BIC'}, n_hidden: {chosen['n_hidden']}, n_labels: {n_labels}, n_batch: "
            f"{self.summary_stats.n_batch}, dispersion: {dispersion}, strata: {self.stratum_names_ or 'none'}. "
            f"{LikelihoodChoice(**self.likelihood_choice_) if self.likelihood_choice_ else ''}"
        )
        # The choice is part of the saved model: it must not be made again on other data.
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        labels_key: str | None = None,
        unlabeled_category: str = "Unknown",
        batch_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        stratify_by: str | None = None,
        input_scale: Literal["counts", "lognorm"] = "counts",
        fractional: Literal["raise", "round"] = "raise",
        **kwargs,
    ) -> None:
        """Register an AnnData. Nothing in it changes but scvi-tools' own ``_scvi_*`` entries.

        Parameters
        ----------
        adata
            Cells x genes.
        layer
            Layer with raw counts; None for ``adata.X``.
        labels_key
            Column of ``adata.obs`` with cell types, which guide the clusters softly. Missing values are unlabelled.
        unlabeled_category
            Value of ``labels_key`` that means "no label".
        batch_key
            Column of ``adata.obs`` with batches (donors, plates, ...).
        size_factor_key
            Column of ``adata.obs`` with size factors, relative to the median cell; the library size is then the size
            factor times the median library. None: the sum of the registered counts.
        categorical_covariate_keys, continuous_covariate_keys
            Further covariates, in ``adata.obs``.
        stratify_by
            Column of ``adata.obs`` with conditions whose difference is to be kept (control and treated, ...). Cells of
            different ones lend nothing to each other through gene means, clusters or contrastive pairs; the networks
            are shared. It is no covariate: what ``batch_key`` takes out of the latent space, this leaves in. For a
            comparison with and without see :func:`scgacl_scvi.evaluate.smoothing`.
        input_scale
            ``"counts"``, or ``"lognorm"`` for a matrix that is log-normalised already and whose counts are lost; the
            likelihood is then ``"normal"``, and there are no counts to give back.
        fractional
            What to do with fractional counts: ``"raise"``, or ``"round"`` those of corrected counts (SoupX, RSEM).
        **kwargs
            For scvi-tools (transfer of a registry).

        Raises
        ------
        KeyError
            If a key or layer is not there.
        TypeError
            If the matrix holds no numbers.
        ValueError
            If the matrix is not raw counts (negative, NaN, fractional), a cell has no counts, there are fewer than two
            cells or genes, gene names are not unique, or a covariate has missing values.
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        check_shape(adata)
        check_choice("input_scale", input_scale, ("counts", "lognorm"))
        check_choice("fractional", fractional, ("raise", "round"))
        if input_scale == "lognorm" and fractional == "round":
            raise ValueError("`fractional='round'` is for counts; with `input_scale='lognorm'` leave it out.")
        for argument, keys in (
            ("categorical_covariate_keys", categorical_covariate_keys),
            ("continuous_covariate_keys", continuous_covariate_keys),
        ):
            if isinstance(keys, str):
                raise TypeError(f"`{argument}={keys!r}`; give a list of names, [{keys!r}].")
        check_key(adata, "layer", layer, "layers")
        categorical = {
            "batch_key": [batch_key],
            "stratify_by": [stratify_by],
            "categorical_covariate_keys": categorical_covariate_keys or [],
        }
        for argument, keys in categorical.items():
            for key in keys:
                check_key(adata, argument, key)
                check_complete(adata, argument, key)
        if not kwargs.get("source_registry"):
            check_key(adata, "labels_key", labels_key)
        check_key(adata, "size_factor_key", size_factor_key)
        check_numeric(adata, "size_factor_key", size_factor_key, positive=True)
        if not kwargs.get("source_registry"):
            check_strata(adata, stratify_by, batch_key)
        for key in continuous_covariate_keys or []:
            check_key(adata, "continuous_covariate_keys", key)
            check_numeric(adata, "continuous_covariate_keys", key)

        labels = (
            LabelsField(REGISTRY_KEYS.LABELS_KEY, labels_key, unlabeled_category)
            if labels_key is not None
            else CategoricalObsField(REGISTRY_KEYS.LABELS_KEY, None)
        )
        manager = AnnDataManager(
            fields=[
                ExpressionField(REGISTRY_KEYS.X_KEY, layer, input_scale=input_scale, fractional=fractional),
                BatchField(REGISTRY_KEYS.BATCH_KEY, batch_key),
                labels,
                NumericalObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor_key, required=False),
                CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys),
                NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, continuous_covariate_keys),
                *([] if stratify_by is None else [StratumField(STRATUM, stratify_by)]),
            ],
            setup_method_args=setup_method_args,
        )
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    def _n_cats_per_cov(self) -> Sequence[int] | None:
        state = self.registry_["field_registries"].get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("state_registry", {})
        return state.get("n_cats_per_key")

    def _counts_and_library(self) -> tuple[Any, np.ndarray]:
        """The registered matrix in memory and the library size of each cell (counts)."""
        manager = self.adata_manager
        x = registered_matrix(manager)
        if not (sparse.issparse(x) or isinstance(x, np.ndarray)):
            x = x[:] if not hasattr(x, "to_memory") else x.to_memory()
        library = np.ravel(np.asarray(x.sum(1))).astype(np.float64)
        if REGISTRY_KEYS.SIZE_FACTOR_KEY in manager.data_registry:
            factor = np.ravel(manager.get_from_registry(REGISTRY_KEYS.SIZE_FACTOR_KEY)).astype(np.float64)
            library = factor * np.median(library)
        return x, library


def _check_clusters(n_clusters: int | None, n_labels: int, preset: str, n_cells: int | None) -> None:
    if n_clusters is not None and n_cells is not None and n_clusters > n_cells:
        raise ValueError(f"`n_clusters={n_clusters}`, but there are {n_cells} cells; give fewer clusters, or None.")
    if n_clusters is not None and n_clusters < max(1, n_labels):
        raise ValueError(
            f"`n_clusters={n_clusters}`, but `labels_key` has {n_labels} labels; give at least that many, or None."
            if n_labels
            else f"`n_clusters={n_clusters}`; give at least 1, or None."
        )
    if preset == PAPER and n_clusters is None and not n_labels:
        raise ValueError(
            "`preset='paper'` needs labels (`setup_anndata(labels_key=...)`) or `n_clusters`; only the default preset "
            "chooses the number of clusters itself."
        )
