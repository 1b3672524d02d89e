"""Getters: imputed expression and clusters."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS
from torch import Tensor

from scgacl_scvi._compat import batch_codes, validate_adata_dataloader_input
from scgacl_scvi._keys import LAYER
from scgacl_scvi.dropout import fit_gamma_normal
from scgacl_scvi.module import VaDE

from ._seed import current_seed
from ._values import Estimand, Policy, Request, Scale, posterior_values
from ._writer import store_layer

_BATCH_SIZE = 512


class ImputationMixin:
    """Imputed values and clusters from the posterior."""

    module: VaDE

    @torch.inference_mode()
    def get_imputed_expression(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: str | int | Sequence[str | int] | None = None,
        gene_list: Sequence[str] | None = None,
        *,
        policy: Policy = "impute",
        scale: Scale = "lognorm",
        estimand: Estimand = "mean",
        threshold: float = 0.5,
        n_samples: int = 1,
        return_mean: bool = True,
        use_posterior_mean: bool | None = None,
        batch_size: int | None = None,
        return_numpy: bool = False,
        layer_key: str | None = "auto",
        dataloader: Iterator[dict[str, Tensor]] | None = None,
        silent: bool = True,
    ) -> pd.DataFrame | np.ndarray:
        """Imputed expression of cells x genes.

        The posterior mean of a gene's expression in a cell given the cell's own count: with the generator's mean mu and
        inverse dispersion theta, both at the reference depth m, ``(x + theta) / (mu + theta) * mu``; a zero that is a
        dropout with probability P has ``P mu + (1 - P) theta mu / (theta + mu)``.

        Parameters
        ----------
        adata
            Data with the model's genes; None for the data it was trained on.
        indices
            Cells; None for all.
        transform_batch
            Batch (or batches, averaged over) as which every cell is to be generated; None for its own. Only with
            ``policy="denoise"``: kept observations would still be those of their own batch.
        gene_list
            Genes; None for all.
        policy
            ``"impute"`` (the paper's output): observed entries kept, zeros judged dropouts filled, other zeros 0.
            ``"denoise"``: the posterior mean everywhere.
        scale
            ``"lognorm"``: log1p(counts / library x m), m being the median library of the training cells; ``"cp10k"``:
            counts per 10,000; ``"log1p_cp10k"``: its log1p; ``"counts"``: counts at the cell's own depth.
        estimand
            ``"mean"``: posterior mean of the expression, then the scale's log1p; ``"log"``: posterior mean of the log1p
            (log scales and count likelihoods only).
        threshold
            ``policy="impute"`` fills a zero from this probability on. The probability is, by likelihood: ``"zinb"``,
            that the zero is a dropout; ``"nb"``, that the cell sequenced once more at depth m would show the gene;
            ``"normal"``, that of the published Gamma-Normal mixture.
        n_samples
            Samples of z.
        return_mean
            Whether to average over samples.
        use_posterior_mean
            Whether z is its posterior mean rather than a (seeded) sample. None: True for one sample, but False for
            ``preset="paper"``, which samples.
        batch_size
            Cells at a time.
        return_numpy
            Return an array rather than a DataFrame; always for samples that are not averaged.
        layer_key
            ``"auto"``: store in ``adata.layers["scgacl"]`` if the call is for all cells and genes of an AnnData, with
            default policy, scale, estimand, threshold and batch. Any other name: store there. None: do not store. What
            is stored is described in ``adata.uns["scgacl"]``.
        dataloader
            Batches of cells instead of ``adata``; nothing is stored.
        silent
            Hide the progress bar.

        Returns
        -------
        DataFrame (cells x genes, float32) on the given scale, sharing its memory with the layer; or an array, samples x
        cells x genes for ``return_mean=False`` and several samples.

        Raises
        ------
        ValueError
            If an argument does not fit the model or another argument.
        KeyError
            If a gene or batch is not known.
        RuntimeError
            If the model is not trained.
        """
        self._check_if_trained(warn=False)
        request = Request(policy, scale, estimand, threshold)
        request.check_against(self.module)
        if policy == "impute" and transform_batch is not None:
            raise ValueError(
                "`transform_batch` with `policy='impute'` would mix batches, since observed entries are kept; use "
                "`policy='denoise'`."
            )
        if n_samples < 1:
            raise ValueError(f"`n_samples={n_samples}`; give at least 1.")
        if use_posterior_mean and n_samples > 1:
            raise ValueError("`use_posterior_mean=True` is one value of z; leave out `n_samples`.")
        validate_adata_dataloader_input(self, adata, dataloader)
        whole = dataloader is None and indices is None and gene_list is None
        average = return_mean or n_samples == 1
        if layer_key not in (None, "auto") and not (whole and average):
            raise ValueError(
                "`layer_key` needs one value for all cells and genes of an AnnData; leave out `indices`, `gene_list`, "
                "and `return_mean=False`."
            )

        genes, batches = None, [None] if transform_batch is None else _batch_codes(self.adata_manager, transform_batch)
        if dataloader is None:
            adata = self._validate_anndata(adata)
            n_cells = adata.n_obs
            rows = np.arange(n_cells) if indices is None else _as_rows(indices, n_cells)
            dataloader = self._make_data_loader(adata=adata, indices=rows, batch_size=batch_size or _BATCH_SIZE)
            cell_names = adata.obs_names[rows]
        else:
            rows, cell_names, n_cells = None, None, None
        var_names = self._gene_names()
        if gene_list is not None:
            genes = _gene_positions(var_names, gene_list)
            var_names = var_names[genes]

        sampled = not (
            n_samples == 1 and (self.preset != "paper" if use_posterior_mean is None else use_posterior_mean)
        )
        blocks = self._value_blocks(dataloader, rows, n_cells, request, batches, n_samples if sampled else 0, silent)
        values = _collect(blocks, None if rows is None else len(rows), genes, average)

        default = request == Request() and transform_batch is None and average
        key = LAYER if layer_key == "auto" and whole and default else layer_key
        if key not in (None, "auto"):
            store_layer(adata, key, values, request, self._details(sampled, n_samples, transform_batch))
        if return_numpy or values.ndim == 3:
            return values
        return pd.DataFrame(values, index=cell_names, columns=var_names, copy=False)

    @torch.inference_mode()
    def predict_cluster(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        soft: bool = False,
        batch_size: int | None = None,
    ) -> np.ndarray | pd.DataFrame:
        """Cluster of each cell: the component of the prior with the largest responsibility for its latent mean.

        Parameters
        ----------
        adata, indices, batch_size
            As in :meth:`get_imputed_expression`.
        soft
            Return responsibilities instead.

        Returns
        -------
        Names of the clusters (cells), or their responsibilities (DataFrame, cells x clusters). A component guided by a
        label bears its name; others are numbered.
        """
        self._check_if_trained(warn=False)
        adata = self._validate_anndata(adata)
        rows = np.arange(adata.n_obs) if indices is None else _as_rows(indices, adata.n_obs)
        loader = self._make_data_loader(adata=adata, indices=rows, batch_size=batch_size or _BATCH_SIZE)
        prior = self.module.prior
        found = [
            prior.responsibilities(self.module.encode(**self.module._get_inference_input(tensors))["qz"].loc).cpu()
            for tensors in loader
        ]
        active = prior.active.cpu().numpy()
        names = np.array([*self.label_names_, *map(str, range(len(self.label_names_), len(active)))], dtype=object)
        responsibilities = torch.cat(found).numpy()[:, active]
        if soft:
            return pd.DataFrame(responsibilities, index=adata.obs_names[rows], columns=names[active])
        return names[active][responsibilities.argmax(1)]

    # --- pieces ------------------------------------------------------------------------------------------------

    def _value_blocks(self, dataloader, rows, n_cells, request, batches, n_samples, silent) -> Iterator[np.ndarray]:
        """Values of successive batches, samples x cells x genes."""
        from scvi.utils import track

        generator = torch.Generator().manual_seed(current_seed())
        # All cells' noise is drawn at once: a value depends neither on the batch size nor on which cells are asked for.
        noise = torch.randn(n_samples, n_cells, self.module.n_latent, generator=generator) if n_cells else None
        start = 0
        for tensors in track(dataloader, description="Imputing", disable=silent):
            n = len(tensors[REGISTRY_KEYS.X_KEY])
            draws = None
            if n_samples:
                draws = (
                    torch.randn(n_samples, n, self.module.n_latent, generator=generator)
                    if noise is None
                    else noise[:, rows[start : start + n]]
                )
            start += n
            yield posterior_values(self.module, tensors, draws, request, batches).cpu().numpy()

    @torch.no_grad()
    def _fit_dropout_rule(self) -> None:
        """Fit the published Gamma-Normal mixture within each class of cells, for likelihoods that have no zeros."""
        module = self.module
        classes = [
            module.dropout_classes(
                module.encode(**module._get_inference_input(tensors)),
                module.labels({key: value.to(module.device) for key, value in tensors.items()}),
            ).cpu()
            for tensors in self._make_data_loader(adata=self.adata, batch_size=_BATCH_SIZE)
        ]
        codes = torch.cat(classes).numpy()
        used, compact = np.unique(codes, return_inverse=True)
        # The published rule also leaves alone what has > 95 % zeros in a class. Its tool cannot have done so where it
        # was measured (docs/method.md): with those dropouts at 0 the truth itself would score worse.
        fit = fit_gamma_normal(self._counts_and_library()[0], compact, max_zero_share=1.0)
        module.zero_dropout.zero_()
        module.zero_dropout[torch.as_tensor(used)] = torch.as_tensor(
            fit.zero_probability(), dtype=torch.float32, device=module.device
        )

    def _lognorm_matrix(self):
        """The training data on the lognorm scale, sparse where the counts are."""
        x, library = self._counts_and_library()
        if self.module.input_scale == "lognorm":
            return x
        factor = float(self.module.median_library) / np.maximum(library, 1e-12)
        if not sparse.issparse(x):
            return np.log1p(x * factor[:, None])
        return sparse.csr_matrix(sparse.diags_array(factor) @ x).log1p()

    def _gene_names(self) -> pd.Index:
        """Names of the modelled genes, from the registry."""
        state = self.registry_["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
        return pd.Index(np.asarray(state["column_names"]).astype(str))

    def _details(self, sampled: bool, n_samples: int, transform_batch) -> dict:
        return {
            "preset": self.preset,
            "gene_likelihood": self.module.gene_likelihood,
            "median_library": float(self.module.median_library),
            "sampled": sampled,
            "n_samples": n_samples,
            "transform_batch": "" if transform_batch is None else str(transform_batch),
            "seed": self.seed_,
            "sampling_seed": current_seed(),
        }


def _as_rows(indices: Sequence[int], n_cells: int) -> np.ndarray:
    """Row numbers from integers or a mask."""
    indices = np.asarray(indices)
    if indices.dtype == bool:
        if len(indices) != n_cells:
            raise ValueError(f"`indices` is a mask of {len(indices)} values for {n_cells} cells.")
        return np.flatnonzero(indices)
    if len(indices) and (indices.min() < -n_cells or indices.max() >= n_cells):
        raise ValueError(f"`indices` goes from {indices.min()} to {indices.max()}, but there are {n_cells} cells.")
    return indices.astype(np.int64) % max(n_cells, 1)


def _gene_positions(var_names: pd.Index, gene_list: Sequence[str]) -> np.ndarray:
    """Positions of the genes asked for."""
    positions = var_names.get_indexer([gene_list] if isinstance(gene_list, str) else list(gene_list))
    if (positions < 0).any():
        unknown = [gene for gene, position in zip(gene_list, positions, strict=False) if position < 0]
        raise KeyError(f"`gene_list`: {len(unknown)} gene(s) are not in the model, e.g. {unknown[:5]}.")
    return positions


def _batch_codes(manager, transform_batch) -> list[int]:
    """Codes of the batches asked for, by name."""
    if manager is None:
        raise ValueError("`transform_batch` needs the names of the batches: load the model with its AnnData.")
    wanted = [transform_batch] if np.ndim(transform_batch) == 0 else list(transform_batch)
    return list(batch_codes(manager, wanted))


def _collect(blocks: Iterator[np.ndarray], n: int | None, genes, average: bool) -> np.ndarray:
    """Blocks (samples x cells x genes) as one float32 array, filled in place where its length is known."""
    values, parts, start = None, [], 0
    for block in blocks:
        block = block if genes is None else block[..., genes]
        block = block.mean(0) if average else block
        if n is None:
            parts.append(block)
            continue
        if values is None:
            values = np.empty((*block.shape[:-2], n, block.shape[-1]), dtype=np.float32)
        values[..., start : start + block.shape[-2], :] = block
        start += block.shape[-2]
    return np.concatenate(parts, axis=-2) if n is None else values
