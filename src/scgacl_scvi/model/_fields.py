"""AnnData fields of SCGACL: scvi-tools' own, with our checks and with missing labels taken as unlabelled."""

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi.data.fields import CategoricalObsField, LabelsWithUnlabeledObsField, LayerField

from scgacl_scvi._keys import STRATUM

from ._checks import check_matrix, check_shape


class ExpressionField(LayerField):
    """The cells x genes matrix; checked whenever data are registered, and never converted in place.

    Parameters
    ----------
    registry_key, layer
        As :class:`scvi.data.fields.LayerField`.
    input_scale, fractional
        As :meth:`scgacl_scvi.SCGACL.setup_anndata`.
    holder
        How the user calls the AnnData, for messages.
    """

    def __init__(
        self, registry_key: str, layer: str | None, *, input_scale: str, fractional: str, holder: str = "adata"
    ):
        super().__init__(registry_key, layer, is_count_data=False, correct_data_format=False)
        self.input_scale = input_scale
        self.fractional = fractional
        self.holder = holder

    def register_field(self, adata: AnnData) -> dict:
        """Check, then register."""
        check_shape(adata)
        where = f"`{self.holder}.X`" if self.attr_key is None else f"`{self.holder}.layers[{self.attr_key!r}]`"
        check_matrix(self.get_field_data(adata), where, input_scale=self.input_scale, fractional=self.fractional)
        return super().register_field(adata)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs) -> dict:
        """Transfer to other data, whose genes must be the model's, in its order."""
        model_genes = np.asarray(state_registry[self.COLUMN_NAMES_KEY]).astype(str)
        if not np.array_equal(model_genes, adata_target.var_names.astype(str)):
            missing = np.setdiff1d(model_genes, adata_target.var_names.astype(str))
            what = f"lacks {len(missing)}, e.g. {missing[:3].tolist()}" if len(missing) else "has them otherwise"
            raise ValueError(
                f"`adata.var_names` must be the model's {len(model_genes)} genes, in its order; this AnnData {what}. "
                "Reorder it with `adata[:, model.adata.var_names]`, or pad and sort it with "
                "`SCGACL.prepare_query_anndata(adata, model)`."
            )
        return super().transfer_field(state_registry, adata_target, **kwargs)


class BatchField(CategoricalObsField):
    """Batches; new ones only where weights are made for them."""

    def transfer_field(self, state_registry: dict, adata_target: AnnData, extend_categories: bool = False, **kwargs):
        """Transfer to other data."""
        key = self._original_attr_key
        if not (extend_categories or self.is_default) and key in adata_target.obs:
            known = {str(name) for name in state_registry[self.CATEGORICAL_MAPPING_KEY]}
            if new := sorted(set(adata_target.obs[key].astype(str)) - known):
                raise ValueError(
                    f"`adata.obs[{key!r}]` has batches that the model does not know ({new[:5]}). Add them with "
                    "`query = SCGACL.load_query_data(adata, model)`; `query` imputes at once, taking them for average "
                    "batches, and better after `query.train()`."
                )
        return super().transfer_field(state_registry, adata_target, extend_categories=extend_categories, **kwargs)


class StratumField(CategoricalObsField):
    """Strata: the model knows those it was trained on, and no others."""

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs) -> dict:
        """Transfer to other data, whose strata must be known."""
        known = [str(name) for name in state_registry[self.CATEGORICAL_MAPPING_KEY]]
        key = self._original_attr_key
        if key not in adata_target.obs:
            raise KeyError(f"`stratify_by={key!r}` is not in `adata.obs`; the model needs the stratum of each cell.")
        new = sorted(set(adata_target.obs[key].astype(str)) - set(known))
        if new:
            raise ValueError(
                f"`adata.obs[{key!r}]` has {new[:5]}, but the model was trained on the strata {known}. Strata borrow "
                "nothing from each other, so there is nothing to impute a new one from; train a model with these cells."
            )
        return super().transfer_field(state_registry, adata_target, **{**kwargs, "extend_categories": False})


def strata_of(registry: dict) -> list[str]:
    """Names of the strata of a registry, none without ``stratify_by``."""
    state = registry["field_registries"].get(STRATUM, {}).get("state_registry", {})
    return [str(name) for name in state.get(StratumField.CATEGORICAL_MAPPING_KEY, [])]


class LabelsField(LabelsWithUnlabeledObsField):
    """Labels as text; missing ones belong to the unlabelled category. The user's column stays as it is."""

    def register_field(self, adata: AnnData) -> dict:
        """Register the labels, missing ones filled in a copy."""
        copy = self._filled(adata)
        state = super().register_field(copy)
        adata.obs[self.attr_key] = copy.obs[self.attr_key].to_numpy()
        return state

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs) -> dict:
        """Transfer to other data; labels that the model does not know, and missing ones, are unlabelled."""
        known = {str(label) for label in state_registry[self.CATEGORICAL_MAPPING_KEY]}
        copy = self._filled(adata_target, known=known)
        # scvi-tools registers again (by `super().register_field`) only what it is asked to here, on the copy.
        state = LabelsWithUnlabeledObsField.transfer_field(self, state_registry, copy, **kwargs)
        adata_target.obs[self.attr_key] = copy.obs[self.attr_key].to_numpy()
        return state

    def _filled(self, adata: AnnData, known: set[str] | None = None) -> AnnData:
        """An AnnData of the labels column alone, as text without missing values."""
        key, other = self._original_attr_key, str(self._unlabeled_category)
        if key in adata.obs:
            column = adata.obs[key].astype(object)
            labels = np.array([other if pd.isna(value) else str(value) for value in column], dtype=object)
        else:
            labels = np.full(adata.n_obs, other, dtype=object)
        if known is not None:
            labels = np.array([label if label in known else other for label in labels], dtype=object)
        index = [str(i) for i in range(adata.n_obs)]
        return AnnData(obs=pd.DataFrame({key: labels}, index=index))
