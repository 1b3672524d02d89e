"""MuData: which modality holds the expression, and where results of it go."""

from typing import Literal

import numpy as np
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import (
    MuDataCategoricalJointObsField,
    MuDataCategoricalObsField,
    MuDataNumericalJointObsField,
    MuDataNumericalObsField,
    MuDataWrapper,
)

from ._checks import check_choice, check_complete, check_has_data, check_key, check_numeric
from ._fields import ExpressionField, LabelsField

MuDataExpressionField = MuDataWrapper(ExpressionField)
MuDataLabelsField = MuDataWrapper(LabelsField)


class MuDataMixin:
    """Registration of MuData, and getters that find the modality of the expression."""

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        rna_layer: str | None = None,
        labels_key: str | None = None,
        unlabeled_category: str = "Unknown",
        batch_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        input_scale: Literal["counts", "lognorm"] = "counts",
        fractional: Literal["raise", "round"] = "raise",
        modalities: dict[str, str] | None = None,
        **kwargs,
    ) -> None:
        """Register a MuData, of which one modality holds the expression that is to be imputed.

        Results go there: ``mdata.mod["rna"].layers["scgacl"]`` and ``mdata.mod["rna"].uns["scgacl"]``. Other modalities
        are left alone.

        Parameters
        ----------
        mdata
            Cells x modalities.
        rna_layer
            Layer of the expression modality with raw counts; None for its ``X``.
        labels_key, unlabeled_category, batch_key, size_factor_key, categorical_covariate_keys, \
continuous_covariate_keys, input_scale, fractional
            As in :meth:`setup_anndata`.
        modalities
            Modality of each argument by its name, as scvi-tools has it: ``{"rna_layer": "rna"}`` at least. An argument
            that is not named here is looked up in ``mdata.obs``.
        **kwargs
            For scvi-tools (transfer of a registry).

        Raises
        ------
        KeyError
            If a key, layer or modality is not there.
        TypeError
            If this is no MuData, or the matrix holds no numbers.
        ValueError
            If ``modalities`` does not name the expression, a modality lacks cells of others or has them in another
            order, or for what :meth:`setup_anndata` raises.

        Examples
        --------
        >>> SCGACL.setup_mudata(mdata, batch_key="donor", modalities={"rna_layer": "rna", "batch_key": "rna"})
        >>> model = SCGACL(mdata)
        >>> model.train()
        >>> model.get_imputed_expression()  # also in mdata.mod["rna"].layers["scgacl"]
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        if not isinstance(mdata, MuData):
            raise TypeError(f"`mdata` is a {type(mdata).__name__}; give a MuData, or call `setup_anndata`.")
        if not (modalities or {}).get("rna_layer"):
            raise ValueError(
                f"`modalities={modalities}` does not say which modality holds the expression; name one of "
                f"{list(mdata.mod)}, for example `modalities={{'rna_layer': 'rna'}}`."
            )
        check_choice("input_scale", input_scale, ("counts", "lognorm"))
        check_choice("fractional", fractional, ("raise", "round"))
        modality = cls._create_modalities_attr_dict(modalities, setup_method_args)
        for argument, name in modalities.items():
            _check_modality(mdata, argument, name)

        expression = mdata.mod[modality.rna_layer]
        check_key(expression, "rna_layer", rna_layer, "layers", holder=_named(modality.rna_layer))
        where = {argument: _holder(mdata, modality[argument]) for argument in _OBS_ARGUMENTS}
        named = {argument: _named(modality[argument]) for argument in _OBS_ARGUMENTS}
        values = {
            "batch_key": [batch_key],
            "size_factor_key": [size_factor_key],
            "categorical_covariate_keys": categorical_covariate_keys or [],
            "continuous_covariate_keys": continuous_covariate_keys or [],
            "labels_key": [None if kwargs.get("source_registry") else labels_key],
        }
        for argument, keys in values.items():
            if isinstance(keys, str):
                raise TypeError(f"`{argument}={keys!r}`; give a list of names, [{keys!r}].")
            for key in keys:
                check_key(where[argument], argument, key, holder=named[argument])
                if argument in ("batch_key", "categorical_covariate_keys"):
                    check_complete(where[argument], argument, key)
                elif argument in ("size_factor_key", "continuous_covariate_keys"):
                    check_numeric(where[argument], argument, key, positive=argument == "size_factor_key")

        if labels_key is not None:
            labels = MuDataLabelsField(
                REGISTRY_KEYS.LABELS_KEY, labels_key, unlabeled_category, mod_key=modality.labels_key
            )
        else:
            labels = MuDataCategoricalObsField(REGISTRY_KEYS.LABELS_KEY, None, mod_key=None)
        manager = AnnDataManager(
            fields=[
                MuDataExpressionField(
                    REGISTRY_KEYS.X_KEY,
                    rna_layer,
                    input_scale=input_scale,
                    fractional=fractional,
                    holder=_named(modality.rna_layer),
                    mod_key=modality.rna_layer,
                    mod_required=True,
                ),
                MuDataCategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key, mod_key=modality.batch_key),
                labels,
                MuDataNumericalObsField(
                    REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor_key, mod_key=modality.size_factor_key, required=False
                ),
                MuDataCategoricalJointObsField(
                    REGISTRY_KEYS.CAT_COVS_KEY,
                    categorical_covariate_keys,
                    mod_key=modality.categorical_covariate_keys,
                ),
                MuDataNumericalJointObsField(
                    REGISTRY_KEYS.CONT_COVS_KEY,
                    continuous_covariate_keys,
                    mod_key=modality.continuous_covariate_keys,
                ),
            ],
            setup_method_args=setup_method_args,
        )
        manager.register_fields(mdata, **kwargs)
        cls.register_manager(manager)

    def get_anndata_manager(self, adata: AnnData | MuData, required: bool = False) -> AnnDataManager | None:
        """Manager of registered data; the expression modality of a registered MuData stands for it.

        So scvi-tools' getters, which name genes by what they are given, are given the modality.
        """
        modality = expression_modality(self)
        if modality is not None and isinstance(adata, AnnData):
            for manager in self._per_instance_manager_store.get(self.id, {}).values():
                if isinstance(manager.adata, MuData) and manager.adata.mod.get(modality) is adata:
                    return manager
        return super().get_anndata_manager(adata, required)

    def _validate_anndata(self, adata: AnnData | MuData | None = None, copy_if_view: bool = True) -> AnnData | MuData:
        if adata is None:
            check_has_data(self, "give `adata=`")
        modality = expression_modality(self)
        if modality is not None and isinstance(adata, AnnData):
            manager = self.get_anndata_manager(adata)
            if manager is None:
                raise ValueError(
                    f"The model was registered with a MuData: give a MuData whose modality {modality!r} has the "
                    "model's genes, not an AnnData."
                )
            manager.validate()
            return adata
        if modality is None and isinstance(adata, MuData):
            raise ValueError("The model was registered with an AnnData: give one, for example `mdata.mod['rna']`.")
        return super()._validate_anndata(adata, copy_if_view)


_OBS_ARGUMENTS = (
    "labels_key",
    "batch_key",
    "size_factor_key",
    "categorical_covariate_keys",
    "continuous_covariate_keys",
)


def expression_modality(model) -> str | None:
    """Name of the modality with the expression; None for a model of an AnnData."""
    return model.registry_["field_registries"][REGISTRY_KEYS.X_KEY]["data_registry"].get("mod_key")


def expression_of(model, adata: AnnData | MuData) -> AnnData:
    """The AnnData with the expression: the modality, or what was given."""
    modality = expression_modality(model)
    return adata.mod[modality] if isinstance(adata, MuData) else adata


def _holder(mdata: MuData, modality: str | None) -> AnnData | MuData:
    return mdata if modality is None else mdata.mod[modality]


def _named(modality: str | None) -> str:
    """How the user calls the holder of a column or layer."""
    return "mdata" if modality is None else f"mdata.mod[{modality!r}]"


def _check_modality(mdata: MuData, argument: str, name: str | None) -> None:
    """A modality that was named is there, with all cells in the MuData's order."""
    if name is None:
        return
    if name not in mdata.mod:
        raise KeyError(f"`modalities[{argument!r}]={name!r}`: this MuData has the modalities {list(mdata.mod)}.")
    cells = mdata.mod[name].obs_names
    if not np.array_equal(cells, mdata.obs_names):
        lacks = mdata.n_obs - int(mdata.obs_names.isin(cells).sum())
        what = f"lacks {lacks} of {mdata.n_obs} cells" if lacks else "has the cells in another order"
        raise ValueError(
            f"`modalities[{argument!r}]={name!r}`: this modality {what} of the MuData. Keep the cells that all have, "
            f"in one order (`muon.pp.intersect_obs(mdata)`), or register the modality alone: "
            f"`SCGACL.setup_anndata(mdata.mod[{name!r}])`."
        )
