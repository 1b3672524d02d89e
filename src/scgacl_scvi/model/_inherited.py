"""Getters of scvi-tools that mean something else here, or nothing: made right, or refused with the reason."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from scvi.model.base import RNASeqMixin

from scgacl_scvi.module import VaDE

from ._checks import check_choice
from ._imputation import batch_codes_of
from ._mudata import expression_of
from ._posterior_draws import draw_expression
from ._seed import current_seed
from ._selection import gene_names, gene_positions, select
from ._uncertainty import _given_z


class InheritedMixin(RNASeqMixin):
    """scvi-tools' getters of expression, for a mixture prior, any likelihood and MuData."""

    module: VaDE

    def get_normalized_expression(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: str | int | Sequence[str | int] | None = None,
        gene_list: Sequence[str] | None = None,
        library_size: float | Literal["latent"] = 1,
        *args,
        **kwargs,
    ) -> pd.DataFrame | np.ndarray:
        """scvi-tools' getter: the generator's mean as a share of the library, given a sample of z only.

        *Not* the imputed values: it ignores each entry's own count, and the gate. For those call
        :meth:`get_imputed_expression`.

        Parameters
        ----------
        adata, indices, transform_batch, gene_list, library_size, *args, **kwargs
            As ``scvi.model.SCVI.get_normalized_expression``; genes come in the order of the data.

        Returns
        -------
        Cells x genes (samples x cells x genes where samples are not averaged): shares of the library times
        ``library_size``; with ``"latent"`` counts at the cell's own depth. With ``"zinb"`` they are those before
        dropout, and need not sum to ``library_size``.

        Raises
        ------
        ValueError
            If the likelihood is ``"normal"``: its mean is that of observed lognorm values, no share of a library.
        NotImplementedError
            If ``weights="importance"``, which supposes a normal prior.
        KeyError
            If a gene is not in the model.
        RuntimeError
            If the model is not trained.
        """
        self._check_if_trained(warn=False)
        self._refuse_normal("get_normalized_expression", "`get_imputed_expression(policy='denoise')` gives its mean")
        _refuse_importance(kwargs)
        if gene_list is not None:
            gene_positions(gene_names(self), gene_list)
        adata = self._expression(adata, kwargs)
        gene_list = [gene_list] if isinstance(gene_list, str) else gene_list
        return super().get_normalized_expression(
            adata, indices, transform_batch, gene_list, library_size, *args, **kwargs
        )

    def differential_expression(
        self, adata: AnnData | MuData | None = None, groupby: str | None = None, *args, **kwargs
    ) -> pd.DataFrame:
        """scvi-tools' Bayesian test, on the generator's means without the gate.

        Parameters
        ----------
        adata, groupby, *args, **kwargs
            As ``scvi.model.SCVI.differential_expression``; of a MuData, ``groupby`` is a column of ``mdata.obs``.

        Returns
        -------
        A row for each gene and comparison: with ``mode="vanilla"`` Bayes factors (natural logarithm), with ``"change"``
        log2 fold changes and probabilities, and raw means and shares of the counts of both groups.

        Raises
        ------
        ValueError
            If the likelihood is ``"normal"``, which has no means of counts, or ``all_stats`` is asked of backed data.
        NotImplementedError
            If ``weights="importance"``, which supposes a normal prior.
        KeyError
            If ``groupby`` is not in ``obs``.
        RuntimeError
            If the model is not trained.
        """
        self._check_if_trained(warn=False)
        self._refuse_normal("differential_expression", "test the raw counts (`scanpy.tl.rank_genes_groups`)")
        _refuse_importance(kwargs)
        expression = self._expression(adata, kwargs)
        if expression is not None:
            if expression.isbacked and kwargs.get("all_stats", True):
                raise ValueError(
                    "scvi-tools' statistics of the counts need them in memory: pass `all_stats=False`, or load the "
                    "data (`adata.to_memory()`)."
                )
            obs = self.get_anndata_manager(expression, required=True).adata.obs
            if groupby is not None and groupby not in obs:
                raise KeyError(f"`groupby={groupby!r}` is not in the registered `obs`; it has {list(obs)[:20]}.")
        return super().differential_expression(expression, groupby, *args, **kwargs)

    @torch.inference_mode()
    def get_feature_correlation_matrix(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        n_samples: int = 10,
        batch_size: int | None = None,
        rna_size_factor: int = 1000,
        transform_batch: str | int | Sequence[str | int] | None = None,
        correlation_type: Literal["spearman", "pearson"] = "spearman",
        silent: bool = True,
    ) -> pd.DataFrame:
        """Correlation of genes over expression drawn given z, through the gate of each gene.

        Without the gate the draws of scvi-tools' getter correlate genes that have nothing in common. Even so take raw
        counts for tests of correlation: draws are no observations.

        Parameters
        ----------
        adata, indices, batch_size, silent
            As in :meth:`get_imputed_expression`.
        n_samples
            Draws of each cell; all of them are held in memory (n_samples x cells x genes).
        rna_size_factor
            Of scvi-tools' getter; a factor of all values, so without effect on a correlation.
        transform_batch
            Batch (or batches, whose matrices are averaged) as which every cell is generated; None for its own.
        correlation_type
            ``"spearman"`` or ``"pearson"``.

        Returns
        -------
        Genes x genes, correlations from -1 to 1 (no unit); NaN for genes whose draws do not vary.

        Raises
        ------
        ValueError
            If the likelihood is ``"normal"``, or an argument is out of range.
        RuntimeError
            If the model is not trained.
        """
        self._check_if_trained(warn=False)
        self._refuse_normal("get_feature_correlation_matrix", "correlate observed lognorm values")
        check_choice("correlation_type", correlation_type, ("spearman", "pearson"))
        if n_samples < 1:
            raise ValueError(f"`n_samples={n_samples}`; give at least 1.")
        selection = select(self, adata, indices, None, batch_size)
        batches = [None] if transform_batch is None else batch_codes_of(self.adata_manager, transform_batch)
        matrices = []
        for batch in batches:
            generator = torch.Generator(device=self.module.device).manual_seed(current_seed())
            drawn = [
                draw_expression(self.module, None, own["scale"], generator).cpu().numpy()
                for tensors, noise in self._noisy_batches(selection, n_samples, "Correlation", silent)
                for _, own, _ in _given_z(self.module, tensors, noise, batch)
            ]
            values = pd.DataFrame(np.concatenate(drawn))
            ranked = values.rank() if correlation_type == "spearman" else values
            with np.errstate(invalid="ignore", divide="ignore"):
                matrices.append(np.corrcoef(ranked.to_numpy(), rowvar=False))
        names = selection.gene_names
        return pd.DataFrame(np.mean(matrices, axis=0), index=names, columns=names)

    def get_likelihood_parameters(self, adata: AnnData | MuData | None = None, *args, **kwargs) -> dict:
        """scvi-tools' getter: ``mean``, ``dispersions`` (theta), and with ``"zinb"`` ``dropout``, without the gate.

        Parameters
        ----------
        adata, *args, **kwargs
            As ``scvi.model.SCVI.get_likelihood_parameters``.

        Returns
        -------
        Arrays of cells x genes: means in counts at the cell's own depth, inverse dispersions and probabilities.

        Raises
        ------
        ValueError
            If the likelihood is ``"normal"``, which has none of them.
        """
        self._refuse_normal("get_likelihood_parameters", "`get_imputed_expression(policy='denoise')` gives its mean")
        return super().get_likelihood_parameters(adata, *args, **kwargs)

    @torch.inference_mode()
    def get_latent_library_size(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        give_mean: bool = True,
        batch_size: int | None = None,
        dataloader=None,
    ) -> np.ndarray:
        """Library size of each cell. It is observed here, not latent.

        Parameters
        ----------
        adata, indices, batch_size, dataloader
            As in :meth:`get_imputed_expression`.
        give_mean
            False: the library size that is used. True, scvi-tools' default, asks for a posterior, which there is not.

        Returns
        -------
        Cells x 1, counts: the sum over the registered genes, or size factor times the median library.

        Raises
        ------
        RuntimeError
            If ``give_mean=True``, or the model is not trained.
        ValueError
            If the input is on the lognorm scale, so that library sizes are not known.
        """
        self._check_if_trained(warn=False)
        if give_mean:
            raise RuntimeError(
                "The library size is observed, so it has no posterior to take a mean of. `give_mean=False` gives the "
                "library sizes used."
            )
        if self.module.input_scale == "lognorm":
            raise ValueError("With `input_scale='lognorm'` counts, and so library sizes, are not known.")
        selection = select(self, adata, indices, None, batch_size, dataloader)
        inputs = (self.module._get_inference_input(tensors) for tensors in selection.loader)
        return torch.cat([self.module.encode(**given)["library"].cpu() for given in inputs]).numpy()

    def get_importance_weights(self, *_, **__):
        """Refused: scvi-tools' weights suppose a standard normal prior, and the prior here is a mixture.

        Raises
        ------
        NotImplementedError
            Always.
        """
        _refuse_importance({"weights": "importance"})

    def _expression(self, adata: AnnData | MuData | None, kwargs: dict) -> AnnData | None:
        """What scvi-tools' getter is to be given, for it names genes by ``adata.var_names``."""
        if kwargs.get("dataloader") is not None:
            return adata
        return expression_of(self, self._validate_anndata(adata))

    def _refuse_normal(self, method: str, remedy: str) -> None:
        if self.module.gene_likelihood == "normal":
            raise ValueError(
                f"`{method}` needs a count likelihood ('nb' or 'zinb'); the 'normal' likelihood is one of observed "
                f"lognorm values: {remedy}."
            )


def _refuse_importance(kwargs: dict) -> None:
    if kwargs.get("weights") == "importance":
        raise NotImplementedError(
            "`weights='importance'` supposes a standard normal prior, and SCGACL's is a mixture: the weights would be "
            "wrong. Leave it at 'uniform'."
        )
