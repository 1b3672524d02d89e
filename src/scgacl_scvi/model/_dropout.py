"""Getter: which zeros are dropouts, and the fits behind it."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS
from torch import Tensor

from scgacl_scvi._keys import MISSING_GENES
from scgacl_scvi.dropout import fit_gamma_normal
from scgacl_scvi.module import VaDE
from scgacl_scvi.module._at_mean import at_posterior_mean
from scgacl_scvi.module._dropout_fit import fit_dropout_curve

from ._assemble import ReturnType, check_return_type
from ._checks import check_choice
from ._imputation import check_layer_key
from ._loading import check_training_data
from ._selection import BATCH_SIZE, Selection, select
from ._values import fill_probability

Method = Literal["posterior", "mixture"]

_FIT_ENTRIES = 4_000_000
_MEANINGS = {
    "zinb": "probability that a zero hides a count that dropout took",
    "nb": "probability that the cell, sequenced once more at the median library, would show the gene",
    "mixture": "probability that a zero is a dropout by the Gamma-Normal mixture of its class and gene",
}


class DropoutMixin:
    """Dropout probabilities."""

    module: VaDE

    @torch.inference_mode()
    def get_dropout_probability(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        gene_list: Sequence[str] | None = None,
        *,
        method: Method = "posterior",
        batch_size: int | None = None,
        return_type: ReturnType = "csr",
        layer_key: str | None = None,
        dataloader: Iterator[dict[str, Tensor]] | None = None,
        silent: bool = True,
    ) -> sparse.csr_matrix | pd.DataFrame | np.ndarray:
        r"""Probability that a zero is a dropout, for each cell and gene.

        What ``policy="impute"`` of :meth:`get_imputed_expression` compares with its threshold (with
        ``method="mixture"`` for the ``"normal"`` likelihood, else with ``"posterior"``). By likelihood:

        ``"zinb"``: the probability that the zero hides a count, i.e. that there was one and dropout took it. With m the
        mean of the gene in the cell at its own depth before dropout, theta its inverse dispersion, the expression
        :math:`\lambda` ~ Gamma(mean m, shape theta) and the dropout curve
        :math:`\operatorname{logit} \pi(\lambda) = a + b \log \lambda`,

        .. math::

            P = \frac{E[(1 - e^{-\lambda}) \, \pi(\lambda)]}{1 - E[(1 - e^{-\lambda}) (1 - \pi(\lambda))]}.

        A zero that was a zero anyway is none. Curve, m and theta are fitted after training, for all genes together.

        ``"nb"``: there is no dropout; the probability that the same cell, sequenced once more at the reference depth
        (the median library of the training cells), would show the gene: :math:`1 - P(0, 0) / P(0)`, with the
        probabilities of a zero now and of one both times, under the gene's mixture.

        Parameters
        ----------
        adata, indices, gene_list, batch_size, dataloader, silent
            As in :meth:`get_imputed_expression`.
        method
            ``"posterior"``: the above, for count likelihoods. ``"mixture"``: the published Gamma-Normal rule, one
            probability for all zeros of a gene in a class of cells (label, else cluster), without its condition on
            genes of more than 95 % zeros (see :func:`~scgacl_scvi.dropout.fit_gamma_normal`).
        return_type
            ``"csr"``, ``"frame"`` or ``"numpy"``. Observed entries are 0 (in CSR: not stored), since what was seen is
            no dropout.
        layer_key
            Store in this layer too, described in ``adata.uns["scgacl"]``.

        Returns
        -------
        Cells x genes, float32, probabilities (no unit, 0 to 1); 0 where a gene was not measured (see
        :meth:`prepare_query_anndata`).

        Raises
        ------
        ValueError
            If ``method="posterior"`` is asked of a ``"normal"`` likelihood, which has no model of zeros, or
            ``"mixture"`` of a count likelihood without its training data.
        KeyError
            If a gene is not in the model.
        RuntimeError
            If the model is not trained.

        Examples
        --------
        >>> probability = model.get_dropout_probability()
        >>> probability[0].max()  # the likeliest dropout of the first cell
        """
        self._check_if_trained(warn=False)
        check_choice("method", method, ("posterior", "mixture"))
        return_type = check_return_type(return_type)
        likelihood = self.module.gene_likelihood
        if method == "posterior" and likelihood == "normal":
            raise ValueError(
                "`method='posterior'` needs a count likelihood ('nb' or 'zinb'); a 'normal' model of observed entries "
                "says nothing of zeros. Use `method='mixture'`."
            )
        check_layer_key(layer_key, whole=dataloader is None and indices is None and gene_list is None)
        selection = select(self, adata, indices, gene_list, batch_size, dataloader)
        by_class = None
        if method == "mixture" and likelihood != "normal":
            check_training_data(self, "`method='mixture'`")
            by_class = self._mixture_by_class()
        blocks = self._probability_blocks(selection, by_class, silent)
        meaning = _MEANINGS["mixture" if method == "mixture" else likelihood]
        record = {"quantity": "dropout probability", "unit": meaning, "method": method, **self._details()}
        return self._deliver(blocks, selection, return_type, layer_key, record)

    def _probability_blocks(
        self, selection: Selection, by_class: Tensor | None, silent: bool
    ) -> Iterator[sparse.csr_matrix]:
        """Probabilities of successive batches at the zeros of genes that were seen, CSR (cells x genes)."""
        module = self.module
        for tensors, _ in self._noisy_batches(selection, 0, "Dropout probabilities", silent):
            tensors = {key: value.to(module.device) for key, value in tensors.items()}
            inferred = module.encode(**module._get_inference_input(tensors))
            if by_class is None:
                inferred["z"] = inferred["qz"].loc
                own = module.predict(tensors, inferred)
                probability = fill_probability(module, tensors, inferred, own)
            else:
                probability = by_class[module.dropout_classes(inferred, tensors)]
            zero = (tensors[REGISTRY_KEYS.X_KEY] == 0) & module.gene_seen
            zero &= ~tensors.get(MISSING_GENES, ~module.gene_seen)  # what was not measured is no zero
            yield selection.of_genes(torch.where(zero, probability, 0.0).cpu().numpy())

    # --- fits after training -----------------------------------------------------------------------------------

    @torch.no_grad()
    def _fit_dropout(self) -> None:
        """Fit what decides on zeros: the dropout curve, or for likelihoods without zeros the published mixture."""
        self._mixture_cache = None
        if self.module.gene_likelihood == "zinb":
            self._fit_curve()
        elif self.module.gene_likelihood == "normal":
            self.module.zero_dropout.copy_(self._mixture_by_class())

    def _fit_curve(self) -> None:
        """Fit the dropout curve on training cells, a sample of them where they are many."""
        module = self.module
        n_cells, n_genes = self.adata.n_obs, self.summary_stats.n_vars
        n_used = min(n_cells, max(256, _FIT_ENTRIES // n_genes))
        rows = np.sort(np.random.default_rng(self.seed_).permutation(n_cells)[:n_used])
        counts, means = [], []
        loader = self._make_data_loader(adata=self.adata, indices=rows, batch_size=BATCH_SIZE)
        for tensors, inferred in at_posterior_mean(module, loader):
            counts.append(tensors[REGISTRY_KEYS.X_KEY])
            means.append(module.predict(tensors, inferred)["rate"])
        with torch.enable_grad():
            fit_dropout_curve(module.dropout_curve, torch.cat(counts), torch.cat(means), self.seed_)

    @torch.no_grad()
    def _mixture_by_class(self) -> Tensor:
        """The published rule, fitted to the training data: probability of each class of cells and gene.

        Classes without a training cell have 0. The rule also leaves alone what has > 95 % zeros in a class. Its tool
        cannot have done so where it was measured (docs/method.md): with those dropouts at 0 the truth itself would
        score worse.
        """
        if getattr(self, "_mixture_cache", None) is not None:
            return self._mixture_cache
        module = self.module
        classes = [
            module.dropout_classes(
                module.encode(**module._get_inference_input(tensors)),
                {key: value.to(module.device) for key, value in tensors.items()},
            ).cpu()
            for tensors in self._make_data_loader(adata=self.adata, batch_size=BATCH_SIZE)
        ]
        used, compact = np.unique(torch.cat(classes).numpy(), return_inverse=True)
        fit = fit_gamma_normal(self._counts_and_library()[0], compact, max_zero_share=1.0)
        n_classes = len(module.zero_dropout) if module.gene_likelihood == "normal" else len(module.prior.active)
        table = torch.zeros(n_classes, self.summary_stats.n_vars, device=module.device)
        table[torch.as_tensor(used, device=module.device)] = torch.as_tensor(
            fit.zero_probability(), dtype=torch.float32, device=module.device
        )
        self._mixture_cache = table
        return table
