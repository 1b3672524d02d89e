"""Getters: imputed expression and clusters."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS
from torch import Tensor

from scgacl_scvi._compat import batch_codes
from scgacl_scvi._keys import LAYER, UNS
from scgacl_scvi.module import VaDE
from scgacl_scvi.scales import UNITS

from ._assemble import ReturnType, as_asked, check_return_type, csr_of, dense_of, smaller_of
from ._fingerprint import data_fingerprint
from ._seed import current_seed
from ._selection import Selection, select
from ._values import Estimand, Policy, Request, Scale, default_threshold, posterior_values
from ._writer import store_layer


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
        threshold: float | None = None,
        n_samples: int = 1,
        return_mean: bool = True,
        use_posterior_mean: bool | None = None,
        batch_size: int | None = None,
        return_numpy: bool = False,
        layer_key: str | None = "auto",
        dataloader: Iterator[dict[str, Tensor]] | None = None,
        silent: bool = True,
        return_type: ReturnType | None = None,
        depth: float | None = None,
    ) -> pd.DataFrame | np.ndarray | sparse.csr_matrix:
        """Imputed expression of cells x genes.

        The posterior mean of a gene's expression in a cell given the cell's own count: with the generator's mean mu and
        inverse dispersion theta, both at the reference depth m, ``(x + theta) / (mu + theta) * mu``; with ``"nb"``
        under a mixture of such Gammas that each gene has learnt. With ``"zinb"`` a zero may hide a count, and has the
        mean over what it may hide.

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
            With ``"zinb"`` the value filled in is what the lost count probably was, drawn towards 0 by the probability
            that there was none (whatever the estimand); else the posterior mean.
            ``"denoise"``: the posterior mean everywhere.
        scale
            ``"lognorm"``: log1p(counts / library x m), m being the median library of the training cells; ``"cp10k"``:
            counts per 10,000; ``"log1p_cp10k"``: its log1p; ``"counts"``: counts at the cell's own depth.
        estimand
            ``"mean"``: posterior mean of the expression, then the scale's log1p; ``"log"``: posterior mean of the log1p
            (log scales and count likelihoods only).
        threshold
            ``policy="impute"`` fills a zero from this probability on; it is that of :meth:`get_dropout_probability`.
            None: .05 for ``"zinb"``, where the value filled in allows for a true zero, else .5.
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
            ``return_type="numpy"``, as scvi-tools says it; samples that are not averaged always are an array.
        layer_key
            ``"auto"``: store in ``adata.layers["scgacl"]`` if the call is for all cells and genes of an AnnData, with
            default policy, scale, estimand, threshold and batch. Any other name: store there. None: do not store. What
            is stored is described in ``adata.uns["scgacl"]``.
        dataloader
            Batches of cells instead of ``adata``; nothing is stored.
        silent
            Hide the progress bar.
        return_type
            ``"frame"`` (default), ``"numpy"``, or for ``policy="impute"`` also ``"csr"``: built block by block, so that
            no dense matrix of all cells is ever held.
        depth
            With ``estimand="log"``, ``policy="denoise"`` and ``"nb"``: the mean of the log1p of a *new count*,
            normalised like any other, of the same cell at so many times its own depth. What predicts normalised counts
            best by squared error; by their zeros it is far below the log1p of the expression where counts are few.

        Returns
        -------
        Cells x genes, float32, on the given scale: a DataFrame (whose ``attrs["scgacl"]`` says how it was made, as
        ``adata.uns`` does of the layer), an array or a CSR matrix. For ``return_mean=False`` and several samples an
        array, samples x cells x genes. The layer is CSR where that takes less memory, else it shares its memory with
        the frame or array.

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
        usual = Request(threshold=default_threshold(self.module))
        request = Request(policy, scale, estimand, usual.threshold if threshold is None else threshold, depth)
        request.check_against(self.module)
        return_type = check_return_type(return_type, return_numpy)
        whole = dataloader is None and indices is None and gene_list is None
        average = return_mean or n_samples == 1
        sampled = not (
            n_samples == 1 and (self.preset != "paper" if use_posterior_mean is None else use_posterior_mean)
        )
        _check_call(request, transform_batch, n_samples, use_posterior_mean, layer_key, whole, average, return_type)
        selection = select(self, adata, indices, gene_list, batch_size, dataloader)
        batches = [None] if transform_batch is None else batch_codes_of(self.adata_manager, transform_batch)
        blocks = self._value_blocks(selection, request, batches, n_samples if sampled else 0, silent)
        if not average:
            n = None if selection.rows is None else len(selection.rows)
            return dense_of((selection.of_genes(block) for block in blocks), n)
        blocks = (selection.of_genes(block).mean(0) for block in blocks)

        record = {
            "quantity": "imputed expression",
            "unit": UNITS[scale],
            **{key: value for key, value in asdict(request).items() if value is not None},
            **self._details(n_samples if sampled else 1, sampled),
            "transform_batch": "" if transform_batch is None else str(transform_batch),
        }
        default = request == usual and transform_batch is None
        key = LAYER if layer_key == "auto" and whole and default else layer_key
        return self._deliver(blocks, selection, return_type, None if key == "auto" else key, record)

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
        label bears its name; others are numbered. With ``stratify_by``, after the name of the stratum and a colon.
        """
        self._check_if_trained(warn=False)
        selection = select(self, adata, indices, None, batch_size)
        module, prior, found = self.module, self.module.prior, []
        for tensors in selection.loader:
            tensors = {key: value.to(module.device) for key, value in tensors.items()}
            z = module.encode(**module._get_inference_input(tensors))["qz"].loc
            found.append(prior.responsibilities(z, strata=module.strata(tensors)).cpu())
        active = prior.active.cpu().numpy()
        names = [*self.label_names_, *map(str, range(len(self.label_names_), prior.n_of_stratum))]
        if self.stratum_names_:
            names = [f"{stratum}: {name}" for stratum in self.stratum_names_ for name in names]
        names = np.array(names, dtype=object)
        responsibilities = torch.cat(found).numpy()[:, active]
        if soft:
            return pd.DataFrame(responsibilities, index=selection.cell_names, columns=names[active])
        return names[active][responsibilities.argmax(1)]

    # --- pieces ------------------------------------------------------------------------------------------------

    def _value_blocks(
        self, selection: Selection, request: Request, batches: list, n_samples: int, silent: bool
    ) -> Iterator[np.ndarray]:
        """Values of successive batches, samples x cells x genes."""
        for tensors, draws in self._noisy_batches(selection, n_samples, "Imputing", silent):
            yield posterior_values(self.module, tensors, draws, request, batches).cpu().numpy()

    def _noisy_batches(
        self, selection: Selection, n_samples: int, description: str, silent: bool
    ) -> Iterator[tuple[dict[str, Tensor], Tensor | None]]:
        """Batches of cells, and the noise of z of their samples (samples x cells x latent; None for no sample)."""
        from scvi.utils import track

        generator = torch.Generator().manual_seed(current_seed())
        n_latent, n_total = self.module.n_latent, selection.n_total
        # All cells' noise is drawn at once: a value depends neither on the batch size nor on which cells are asked for.
        noise = torch.randn(n_samples, n_total, n_latent, generator=generator) if n_total and n_samples else None
        start = 0
        for tensors in track(selection.loader, description=description, disable=silent):
            n = len(tensors[REGISTRY_KEYS.X_KEY])
            draws = None
            if noise is not None:
                draws = noise[:, selection.rows[start : start + n]]
            elif n_samples:
                draws = torch.randn(n_samples, n, n_latent, generator=generator)
            start += n
            yield tensors, draws

    def _deliver(
        self, blocks: Iterator, selection: Selection, return_type: str, key: str | None, record: dict
    ) -> pd.DataFrame | np.ndarray | sparse.csr_matrix:
        """Put blocks (cells x genes) together, store them as layer ``key`` unless it is None, and return them."""
        if return_type == "csr":
            values = layer = csr_of(blocks, len(selection.gene_names))
        else:
            values = dense_of(blocks, None if selection.rows is None else len(selection.rows))
            layer = smaller_of(values) if key is not None else None
        if key is not None:
            manager = self.get_anndata_manager(selection.adata, required=True)
            record = {**record, "data_fingerprint": data_fingerprint(manager)}
            store_layer(selection.expression, key, layer, record)
        result = as_asked(values, selection, return_type)
        if return_type == "frame":
            result.attrs[UNS] = record
        return result

    def _lognorm_matrix(self):
        """The training data on the lognorm scale, sparse where the counts are."""
        x, library = self._counts_and_library()
        if self.module.input_scale == "lognorm":
            return x
        factor = float(self.module.median_library) / np.maximum(library, 1e-12)
        if not sparse.issparse(x):
            return np.log1p(x * factor[:, None])
        return sparse.csr_matrix(sparse.diags_array(factor) @ x).log1p()

    def _details(self, n_samples: int = 1, sampled: bool = False) -> dict:
        """What every record says about the model."""
        return {
            "preset": self.preset,
            "gene_likelihood": self.module.gene_likelihood,
            "median_library": float(self.module.median_library),
            "sampled": sampled,
            "n_samples": n_samples,
            "seed": self.seed_,
            "sampling_seed": current_seed(),
        }


def check_layer_key(layer_key: str | None, whole: bool, average: bool = True) -> None:
    """A layer needs one value for each entry of an AnnData."""
    if layer_key not in (None, "auto") and not (whole and average):
        raise ValueError(
            "`layer_key` needs one value for all cells and genes of an AnnData; leave out `indices`, `gene_list`, "
            "and `return_mean=False`."
        )


def _check_call(request, transform_batch, n_samples, use_posterior_mean, layer_key, whole, average, return_type):
    """Arguments of :meth:`ImputationMixin.get_imputed_expression` that contradict each other."""
    if request.policy == "impute" and transform_batch is not None:
        raise ValueError(
            "`transform_batch` with `policy='impute'` would mix batches, since observed entries are kept; use "
            "`policy='denoise'`."
        )
    if n_samples < 1:
        raise ValueError(f"`n_samples={n_samples}`; give at least 1.")
    if use_posterior_mean and n_samples > 1:
        raise ValueError("`use_posterior_mean=True` is one value of z; leave out `n_samples`.")
    check_layer_key(layer_key, whole, average)
    if return_type == "csr" and (request.policy != "impute" or not average):
        raise ValueError(
            "`return_type='csr'` is for `policy='impute'` with one value for each entry: nothing else has zeros to "
            "leave out. Use 'frame' or 'numpy'."
        )


def batch_codes_of(manager, transform_batch) -> list[int]:
    """Codes of the batches asked for, by name."""
    if manager is None:
        raise ValueError("`transform_batch` needs the names of the batches: load the model with its AnnData.")
    wanted = [transform_batch] if np.ndim(transform_batch) == 0 else list(transform_batch)
    return list(batch_codes(manager, wanted))
