"""Sharing of models through scvi-tools' hub: metadata, and a model card that says how good the imputation is.

Needs ``huggingface_hub``, which the extra ``hub`` brings. Nothing here uploads anything; that is
``scvi.hub.HubModel.push_to_huggingface_hub``.
"""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from scgacl_scvi._keys import HELDOUT

if TYPE_CHECKING:
    from huggingface_hub import ModelCard
    from scvi.hub import HubMetadata, HubModel

    from scgacl_scvi.model import SCGACL

__all__ = ["export", "metadata", "model_card"]

_BODY = """\
# {title}

Imputes dropout in single-cell RNA-seq: [scgacl-scvi](https://doi.org/10.1093/bib/bbag018), scGACL rebuilt on
scvi-tools. {description}

```python
from scvi.hub import HubModel

hub_model = HubModel("FOLDER")  # or HubModel.pull_from_huggingface_hub("OWNER/NAME")
hub_model.load_model(adata=adata)  # raw counts, the same genes
imputed = hub_model.model.get_imputed_expression()  # also in adata.layers["scgacl"]
```

## Training data

{data}

## Evaluation

{evaluation}

## What imputed values are safe for

Looking at genes, clusters and trajectories. Not for p values, correlations or networks: an imputed value is a guess
that borrows from other cells and genes. For those take the raw counts, or draws
(`model.posterior_predictive_sample()`).

## Settings

Model:

```json
{init}
```

Registration of the data:

```json
{setup}
```

Versions: {versions}.
"""


def metadata(model: "SCGACL", *, training_data_url: str | None = None) -> "HubMetadata":
    """What scvi-tools' hub has to know of a model.

    Parameters
    ----------
    model
        A trained model.
    training_data_url
        Where the training data are, if they are public.

    Returns
    -------
    ``scvi.hub.HubMetadata``, with the class and package that load the model.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    """
    from scvi.hub import HubMetadata

    model._check_if_trained(warn=False)
    return HubMetadata(
        model.registry_["scvi_version"],
        importlib.metadata.version("anndata"),
        type(model).__name__,
        training_data_url=training_data_url,
        model_parent_module="scgacl_scvi",
    )


def model_card(
    model: "SCGACL",
    *,
    license_info: str,
    description: str = "",
    evaluation: Mapping[str, pd.DataFrame] | None = None,
    tissues: Sequence[str] = (),
) -> "ModelCard":
    """Model card with the settings, the training data in numbers, and how well held-out molecules are predicted.

    scvi-tools' own helper knows scvi-tools' models only.

    Parameters
    ----------
    model
        A trained model with its training data.
    license_info
        Licence of the model, as Hugging Face names it (``"cc-by-4.0"``).
    description
        What the data are, and what the model is for.
    evaluation
        Further tables by title, for example from :func:`~scgacl_scvi.evaluate.molecular_cv`.
    tissues
        Tissues of the data, as tags.

    Returns
    -------
    ``huggingface_hub.ModelCard``. It names no cell and no donor; the settings name columns of ``obs``.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    ValueError
        If the model was loaded without its training data.
    """
    from huggingface_hub import ModelCard, ModelCardData

    model._check_if_trained(warn=False)
    versions = {
        "scgacl-scvi": importlib.metadata.version("scgacl-scvi"),
        "scvi-tools": model.registry_["scvi_version"],
        "anndata": importlib.metadata.version("anndata"),
        "torch": importlib.metadata.version("torch"),
    }
    annotated = model.module.n_labels > 0
    tags = ["biology", "genomics", "single-cell", "imputation", "modality:rna", f"annotated:{annotated}"]
    tags += [f"model_cls_name:{type(model).__name__}", f"scvi_version:{versions['scvi-tools']}"]
    tags += [f"anndata_version:{versions['anndata']}", *(f"tissue:{tissue}" for tissue in tissues)]
    header = ModelCardData(license=license_info, library_name="scvi-tools", tags=tags)

    tables = {"": _heldout(model), **(evaluation or {})}
    parts = [f"### {title}\n\n{_markdown(table)}" if title else _markdown(table) for title, table in tables.items()]
    stats = model.summary_stats
    body = _BODY.format(
        title=f"SCGACL, {stats.n_cells:,} cells x {stats.n_vars:,} genes",
        description=description,
        data=_markdown(_data(model)),
        evaluation="\n\n".join(parts),
        init=_json(model.init_params_["non_kwargs"]),
        setup=_json(model.registry_["setup_args"]),
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
    )
    return ModelCard(f"---\n{header.to_yaml()}\n---\n\n{body}")


def export(
    model: "SCGACL",
    folder: str | PathLike,
    *,
    license_info: str,
    save_anndata: bool = False,
    overwrite: bool = False,
    training_data_url: str | None = None,
    **card,
) -> "HubModel":
    """Write model, metadata and model card into a folder that scvi-tools' hub takes as it is.

    Parameters
    ----------
    model
        A trained model with its training data.
    folder
        Where to.
    license_info, **card
        Of :func:`model_card`.
    save_anndata
        Whether to put the training data there too. Counts of patients are personal data; without them the model is
        loaded with other cells, ``HubModel.load_model(adata=...)``. The model itself holds names of genes, labels and
        batches.
    overwrite
        Whether to replace what is in the folder.
    training_data_url
        Of :func:`metadata`.

    Returns
    -------
    ``scvi.hub.HubModel`` of the folder.

    Raises
    ------
    ValueError
        If the folder exists and ``overwrite`` is False, or the model was loaded without its training data.
    RuntimeError
        If the model is not trained.
    """
    from scvi.hub import HubModel

    described = metadata(model, training_data_url=training_data_url)
    card = model_card(model, license_info=license_info, **card)
    model.save(str(Path(folder)), overwrite=overwrite, save_anndata=save_anndata)
    exported = HubModel(str(Path(folder)), metadata=described, model_card=card)
    exported.save(overwrite=overwrite)
    return exported


def _data(model: "SCGACL") -> pd.DataFrame:
    """The training data in numbers."""
    module, setup, stats = model.module, model.registry_["setup_args"], model.summary_stats
    choice = model.likelihood_choice_
    why = "" if choice is None else f" ({choice['excess_zero_share']:.1%} of the zeros are in excess)"
    rows = {
        "cells": f"{stats.n_cells:,}",
        "genes": f"{stats.n_vars:,}",
        "input": setup.get("input_scale", "counts"),
        "median library": f"{float(module.median_library):,.0f}",
        "likelihood": module.gene_likelihood + why,
        "labels": f"{module.n_labels}" if module.n_labels else "none",
        "batches": f"{stats.n_batch}",
        "preset": model.preset,
        "seed": f"{model.seed_}",
        "fingerprint of the counts": getattr(model, "data_fingerprint_", "unknown"),
    }
    return pd.DataFrame({"": list(rows), "value": list(rows.values())})


def _heldout(model: "SCGACL") -> pd.DataFrame:
    """How well molecules are predicted that were held out, and what was filled, in rows of words and numbers."""
    report = model.gene_report()
    known = report["gain"].dropna()
    cells = report.attrs["heldout_cells"]
    of = "molecules of validation cells, not trained on" if cells == "validation" else "training cells, which flatters"
    rows = {
        f"median gain of a gene ({report.attrs['units']['gain']}), {of}": f"{known.median():.3f}",
        "genes that are predicted better than by their mean": f"{(known > 0).sum():,} of {len(known):,}",
        "genes imputed": f"{report['status'].str.startswith('imputed').sum():,} of {len(report):,}",
        "genes imputed with their mean only (the gate)": f"{report['status'].str.contains('with its mean').sum():,}",
        "zeros filled, mean over genes": f"{report['share_filled'].mean():.1%}",
    }
    history = model.history or {}
    if f"{HELDOUT}_validation" in history:
        best = float(history[f"{HELDOUT}_validation"].astype(float).min().iloc[0])
        unit = "of hidden entries" if model.module.gene_likelihood == "normal" else "nats per molecule"
        rows[f"best held-out loss while training ({unit})"] = f"{best:.3f}"
    return pd.DataFrame({"figure": list(rows), "value": list(rows.values())})


def _markdown(table: pd.DataFrame) -> str:
    """A table in Markdown; an index that has a meaning becomes the first column."""
    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index()
    lines = [list(map(str, table.columns)), ["---"] * table.shape[1]]
    lines += [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _json(settings: Mapping) -> str:
    return json.dumps(dict(settings), indent=2, default=str)
