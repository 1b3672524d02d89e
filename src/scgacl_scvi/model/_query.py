"""New data beside a trained model: ``load_query_data`` and what it needs."""

import logging
from typing import Any

import pandas as pd
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.model.base import ArchesMixin

from scgacl_scvi._compat import loaded_data
from scgacl_scvi._keys import MISSING
from scgacl_scvi.module import VaDE
from scgacl_scvi.train._query import extended_state

logger = logging.getLogger(__name__)

_OF_A_FIT = ("history_", "train_indices_", "validation_indices_", "test_indices_", "best_epoch_", "data_fingerprint_")


class QueryMixin(ArchesMixin):
    """Mapping of new cells, batches and gene panels onto a trained model (scArches)."""

    module: VaDE
    reference_categories_: list[int] | None = None

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData | None = None,
        reference_model: Any = None,
        registry: dict | None = None,
        inplace_subset_query_vars: bool = False,
        accelerator: str = "auto",
        device: int | str = "auto",
        unfrozen: bool = False,
        **kwargs,
    ):
        """Prepare a trained model for new data, whose batches may be new.

        The new model imputes as it is: a new batch is taken for an average one. ``train()`` then fits what concerns the
        new batches alone (their weights in the generator, and in an encoder that sees batches; each gene's mean in
        them; with ``"gene-batch"`` dispersions, but of genes that keep their own mean), by the evidence bound. Every
        value of the reference stays the same to the bit: weights, prior, dropout curve, and the gate of each gene. So
        do the results for the reference's own cells.

        Parameters
        ----------
        adata
            New data with the model's genes (see :meth:`prepare_query_anndata`) and columns of ``obs``. A labels column
            may be missing.
        reference_model
            The trained model, or the path of a saved one.
        registry, inplace_subset_query_vars, accelerator, device
            As in scvi-tools.
        unfrozen
            Train all weights on the new data, as any model: nothing of the reference is kept then.
        **kwargs
            scvi-tools' further choices of what to freeze. What they would free is of no use here; only their defaults
            are accepted.

        Returns
        -------
        The model of the new data.

        Raises
        ------
        TypeError
            If a ``freeze_...`` argument is given.
        ValueError
            If the data do not fit the model.

        Examples
        --------
        >>> SCGACL.prepare_query_anndata(new, model)
        >>> query = SCGACL.load_query_data(new, model)
        >>> query.train()
        >>> query.get_imputed_expression()  # in new.layers["scgacl"]

        References
        ----------
        Lotfollahi et al. 2021 (scArches), doi:10.1038/s41587-021-01001-7.
        """
        if refused := sorted(set(kwargs) - {"transfer_batch", "datamodule"}):
            raise TypeError(
                f"`{refused[0]}`: the reference's weights are all kept, or with `unfrozen=True` all trained; there is "
                "nothing between. Leave it out."
            )
        attributes, _, state, _ = loaded_data(reference_model, device="cpu")
        sizes = _category_sizes(attributes["registry_"])
        model = super().load_query_data(
            adata,
            reference_model,
            registry,
            inplace_subset_query_vars,
            accelerator,
            device,
            unfrozen=True,
            **kwargs,
        )
        # scvi-tools puts new weights last, which with further covariates is not where the new batches are.
        model.module.load_state_dict(extended_state(model.module, state, sizes))
        if unfrozen:
            model.module.n_trained_batches.fill_(model.module.n_batch)
        for name in _OF_A_FIT:
            setattr(model, name, None)
        model.phases_ = {}
        model.reference_categories_ = None if unfrozen else sizes
        model.is_trained_ = attributes["is_trained_"] and not unfrozen
        return model

    @staticmethod
    def prepare_query_anndata(
        adata: AnnData, reference_model: Any, return_reference_var_names: bool = False, inplace: bool = True
    ) -> AnnData | pd.Index | None:
        """Sort genes as the model has them, drop others, and pad those that the data did not measure.

        Padded genes hold zeros, as in scvi-tools, but are marked in ``adata.var["_scgacl_missing"]``: the model takes
        them for unknown, not for zero. They enter neither the library size nor the encoder, and what is imputed for
        them is the model's mean, in every cell and by either policy.

        Parameters
        ----------
        adata
            New data.
        reference_model
            The trained model, or the path of a saved one.
        return_reference_var_names
            Only return the names of the model's genes.
        inplace
            Change ``adata``, or return a new AnnData.

        Returns
        -------
        None; the prepared data with ``inplace=False``; or the names of the genes.
        """
        if return_reference_var_names:
            return ArchesMixin.prepare_query_anndata(adata, reference_model, return_reference_var_names=True)
        target = adata if inplace else adata.copy()
        measured = target.var_names[~target.var[MISSING]] if MISSING in target.var else target.var_names
        ArchesMixin.prepare_query_anndata(target, reference_model)
        missing = ~target.var_names.isin(measured)
        if missing.any():
            target.var[MISSING] = missing
            logger.info(f"{missing.sum():,} of {target.n_vars:,} genes were not measured.")
        return None if inplace else target

    def _new_categories(self) -> list[int]:
        """How many categories of the batch and of each further covariate the reference does not know."""
        now = _category_sizes(self.registry_)
        return [n - known for n, known in zip(now, self.reference_categories_, strict=True)]


def _category_sizes(registry: dict) -> list[int]:
    """Number of batches, then of the categories of each categorical covariate."""
    fields = registry["field_registries"]
    batches = fields[REGISTRY_KEYS.BATCH_KEY]["state_registry"]["categorical_mapping"]
    others = fields.get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("state_registry", {}).get("n_cats_per_key", [])
    return [len(batches), *map(int, others)]
