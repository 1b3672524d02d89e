"""Getters: how sure an imputed value is, and counts drawn from the posterior."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS
from torch import Tensor

from scgacl_scvi._keys import MISSING_GENES
from scgacl_scvi.module import VaDE
from scgacl_scvi.scales import LOG_SCALES, UNITS, Scale, convert

from ._assemble import ReturnType, check_return_type, csr_of
from ._imputation import batch_codes_of, check_layer_key
from ._posterior_draws import draw_counts, draw_expression, moments
from ._seed import current_seed
from ._selection import select
from ._values import Request


class UncertaintyMixin:
    """Spread of the posterior, as numbers and as samples."""

    module: VaDE

    @torch.inference_mode()
    def get_imputed_uncertainty(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        gene_list: Sequence[str] | None = None,
        *,
        scale: Scale = "lognorm",
        n_samples: int = 50,
        batch_size: int | None = None,
        return_type: ReturnType = "frame",
        layer_key: str | None = None,
        dataloader: Iterator[dict[str, Tensor]] | None = None,
        silent: bool = True,
    ) -> pd.DataFrame | np.ndarray:
        """Posterior standard deviation of the expression behind each entry.

        Of the expression given the cell's profile and the entry's own count, over what is not known of z
        (``n_samples`` draws of the encoder's posterior) and, given z, over the posterior of the expression (with
        ``"nb"`` under the gene's mixture); with ``"zinb"`` a zero has the posterior over what it may hide. It is about
        the expression, so an observed entry has one too: that of a count that was drawn once. On ``"counts"`` and
        ``"cp10k"`` the part given z is in closed form; on log scales it is drawn as well, so the result itself has a
        relative error of about 1 / sqrt(2 (n_samples - 1)), a tenth with 50 draws.

        The network's weights are taken as known: their uncertainty is not in it. Nor, with ``"normal"``, is there a
        gamma posterior: an entry has the spread of the reconstruction over z and, but for ``preset="paper"`` (which
        learns none), the gene's noise.

        Parameters
        ----------
        adata, indices, gene_list, batch_size, dataloader, silent
            As in :meth:`get_imputed_expression`.
        scale
            As in :meth:`get_imputed_expression`; ``"lognorm"`` only for the ``"normal"`` likelihood.
        n_samples
            Draws, at least 2. Seeded by ``scvi.settings.seed``; z does not depend on the cells asked for.
        return_type
            ``"frame"`` or ``"numpy"``; no entry is sure, so there is nothing sparse.
        layer_key
            Store in this layer too, described in ``adata.uns["scgacl"]``.

        Returns
        -------
        Cells x genes, float32: standard deviations, in the unit of ``scale``. 0 for genes that no training cell shows.

        Raises
        ------
        ValueError
            If an argument does not fit the model.
        KeyError
            If a gene is not in the model.
        RuntimeError
            If the model is not trained.

        Examples
        --------
        >>> sd = model.get_imputed_uncertainty(gene_list=["CD3E"])
        """
        self._check_if_trained(warn=False)
        Request(scale=scale).check_against(self.module)
        if n_samples < 2:
            raise ValueError(f"`n_samples={n_samples}`; a standard deviation needs at least 2.")
        if check_return_type(return_type) == "csr":
            raise ValueError("`return_type='csr'`: no entry's uncertainty is 0; use 'frame' or 'numpy'.")
        if self.module.gene_likelihood == "normal" and scale != "lognorm":
            raise ValueError(f"`scale={scale!r}`: the 'normal' likelihood is one of lognorm values; use 'lognorm'.")
        check_layer_key(layer_key, whole=dataloader is None and indices is None and gene_list is None)
        selection = select(self, adata, indices, gene_list, batch_size, dataloader)
        blocks = (selection.of_genes(block) for block in self._deviation_blocks(selection, scale, n_samples, silent))
        unit = f"standard deviation, in {UNITS[scale]}"
        record = {"quantity": "posterior standard deviation", "unit": unit, "scale": scale}
        record |= self._details(n_samples, sampled=True)
        return self._deliver(blocks, selection, return_type, layer_key, record)

    def _deviation_blocks(self, selection, scale: Scale, n_samples: int, silent: bool) -> Iterator[np.ndarray]:
        module = self.module
        generator = torch.Generator(device=module.device).manual_seed(current_seed())
        for tensors, noise in self._noisy_batches(selection, n_samples, "Uncertainty", silent):
            mean, square, within = 0.0, 0.0, 0.0  # running mean and sum of squares: no samples x cells x genes array
            for k, (tensors_z, own, depth) in enumerate(_given_z(module, tensors, noise), 1):
                value, variance = _spread(module, tensors_z, own, depth, scale, generator)
                step = value - mean
                mean = mean + step / k
                square, within = square + step * (value - mean), within + variance
            variance = square / (n_samples - 1) + within / n_samples
            yield torch.where(module.gene_seen, variance.clamp_min(0).sqrt(), 0.0).cpu().numpy()

    @torch.inference_mode()
    def posterior_predictive_sample(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: str | int | None = None,
        n_samples: int = 1,
        gene_list: Sequence[str] | None = None,
        batch_size: int | None = None,
        dataloader: Iterator[dict[str, Tensor]] | None = None,
        silent: bool = True,
        *,
        given_counts: bool = True,
        dropout: bool = False,
        layer_key: str | None = None,
    ):
        """Draw counts as the same cells would show them in another run: for tests, where imputed values are not safe.

        z is drawn from the encoder's posterior, the expression from its posterior given z and the entry's own count
        (with ``"nb"`` from a component of the gene's mixture, drawn first), and the count from a Poisson distribution
        at the cell's own depth. Without the counts, and for genes that were not measured, the likelihood's own
        dispersion is all the spread there is: a gene's mixture says how to read a count.

        Parameters
        ----------
        adata, indices, gene_list, batch_size, dataloader, silent
            As in :meth:`get_imputed_expression`.
        transform_batch
            One batch, as which every cell is to be generated; needs ``given_counts=False``. None for its own.
        n_samples
            Number of samples.
        given_counts
            Whether the expression is drawn given the entry's own count. False: given z only, as scvi-tools does; the
            samples then lack what z does not explain.
        dropout
            ``"zinb"`` only: whether samples suffer the dropout of the data. With ``given_counts`` what was lost is lost
            again and what was seen is not, as in a second sequencing of the same library.
        layer_key
            Store a single sample in this layer too, described in ``adata.uns["scgacl"]``.

        Returns
        -------
        Counts (whole numbers in float32, at the cell's own depth): a CSR matrix, cells x genes, for one sample; for
        several as scvi-tools a ``sparse.GCXS`` array, cells x genes x samples. Two calls with one
        ``scvi.settings.seed`` agree for the same cells and ``batch_size``.

        Raises
        ------
        ValueError
            If the likelihood is ``"normal"``, which has no counts, or an argument contradicts another.
        KeyError
            If a gene or batch is not known.
        RuntimeError
            If the model is not trained.

        Examples
        --------
        >>> counts = model.posterior_predictive_sample()
        >>> counts.shape == model.adata.shape
        True
        """
        self._check_if_trained(warn=False)
        self._check_predictive(n_samples, given_counts, dropout, transform_batch)
        check_layer_key(
            layer_key, whole=dataloader is None and indices is None and gene_list is None, average=n_samples == 1
        )
        selection = select(self, adata, indices, gene_list, batch_size, dataloader)
        batch = None if transform_batch is None else batch_codes_of(self.adata_manager, transform_batch)[0]
        draws = [[] for _ in range(n_samples)]
        generator = torch.Generator(device=self.module.device).manual_seed(current_seed())
        for tensors, noise in self._noisy_batches(selection, n_samples, "Sampling", silent):
            for sample, (tensors_z, own, _) in zip(draws, _given_z(self.module, tensors, noise, batch), strict=True):
                x = tensors_z[REGISTRY_KEYS.X_KEY]
                counts = draw_counts(self.module, x if given_counts else None, own, generator, dropout=dropout)
                sample.append(sparse.csr_matrix(selection.of_genes(counts.cpu().numpy())))
        n_genes = len(selection.gene_names)
        samples = [csr_of(iter(blocks), n_genes) for blocks in draws]
        if layer_key is not None:
            record = {"quantity": "posterior predictive counts", "unit": UNITS["counts"], "scale": "counts"}
            record |= {"given_counts": given_counts, "dropout": dropout, **self._details(1, sampled=True)}
            return self._deliver(iter(samples), selection, "csr", layer_key, record)
        return samples[0] if n_samples == 1 else _stacked(samples)

    def _check_predictive(self, n_samples: int, given_counts: bool, dropout: bool, transform_batch) -> None:
        likelihood = self.module.gene_likelihood
        if likelihood == "normal":
            raise ValueError(
                "The 'normal' likelihood has no counts to draw; fit with `gene_likelihood='nb'` or 'zinb'."
            )
        if n_samples < 1:
            raise ValueError(f"`n_samples={n_samples}`; give at least 1.")
        if dropout and likelihood != "zinb":
            raise ValueError("`dropout=True` needs the 'zinb' likelihood; with 'nb' there is no dropout to suffer.")
        if given_counts and transform_batch is not None:
            raise ValueError("`transform_batch` needs `given_counts=False`: the own count was seen in its own batch.")


def _given_z(module: VaDE, tensors: dict[str, Tensor], noise: Tensor, batch: int | None = None) -> Iterator[tuple]:
    """Tensors of a batch, what the generator makes of each draw of z, and depths relative to m."""
    tensors = {key: value.to(module.device) for key, value in tensors.items()}
    inferred = module.encode(**module._get_inference_input(tensors))
    qz, depth = inferred["qz"], inferred["library"] / module.median_library
    for draw in noise.to(module.device):
        own = module.predict(tensors, {**inferred, "z": qz.loc + qz.scale * draw}, batch)
        yield tensors, {**own, "missing": tensors.get(MISSING_GENES)}, depth


def _spread(module: VaDE, tensors, own: dict, depth: Tensor, scale: Scale, generator) -> tuple[Tensor, Tensor]:
    """A value given z and its variance given z; on a log scale a draw, whose variance is in the draws' own."""
    if module.gene_likelihood == "normal":
        noise = torch.zeros(()) if module.published else module.log_theta.exp().square()
        return own["scale"], noise.to(own["scale"])
    x, mean = tensors[REGISTRY_KEYS.X_KEY], own["rate"]
    if scale != "counts":  # at the reference depth, as the values are
        x, mean = x / depth, own["scale"]
    if scale not in LOG_SCALES:
        value, variance = moments(module, x, mean, own["theta"], own["missing"])
        factor = 1.0 if scale == "counts" else _cp10k_factor(module)
        return value * factor, variance * factor**2
    expression = draw_expression(module, x, mean, own["theta"], generator, missing=own["missing"])
    median = float(module.median_library)
    lognorm = torch.log1p(expression)
    value = convert(lognorm, "lognorm", scale, library=depth * median, median_library=median)
    return value, torch.zeros(()).to(value)


def _cp10k_factor(module: VaDE) -> float:
    """What one count at the reference depth is on the cp10k scale."""
    median = float(module.median_library)
    return float(convert(np.ones((1, 1)), "counts", "cp10k", library=[median])[0, 0])


def _stacked(samples: list[sparse.csr_matrix]):
    """Samples as scvi-tools returns them, cells x genes x samples."""
    from sparse import COO, GCXS

    coordinates, data = [], []
    for k, sample in enumerate(samples):
        entries = sample.tocoo()
        coordinates.append(np.stack([entries.row, entries.col, np.full(entries.nnz, k)]))
        data.append(entries.data)
    shape = (*samples[0].shape, len(samples))
    return GCXS.from_coo(COO(np.concatenate(coordinates, axis=1), np.concatenate(data), shape=shape))
