"""Getter: what was done with each gene, and why not."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS
from torch import Tensor

from scgacl_scvi._keys import HELD_OUT, UNS
from scgacl_scvi.module import VaDE
from scgacl_scvi.module._at_mean import at_posterior_mean
from scgacl_scvi.module._heldout import HELDOUT_FRACTION
from scgacl_scvi.train import CellLoader
from scgacl_scvi.train._gate_fit import MIN_EVIDENCE
from scgacl_scvi.train._splitter import withheld

from ._loading import check_training_data
from ._selection import BATCH_SIZE, Selection, select
from ._values import Request, default_threshold, expected, zeros_to_fill

_EPS = 1e-6
UNITS = {
    "n_seen": "cells with a count",
    "share_filled": "share of the gene's zeros that policy 'impute' fills, 0 to 1",
    "gain": "nats per held-out molecule over library x gene mean (Poisson loss)",
    "gain_se": "standard error of gain, same unit",
    "evidence": "nats by which held-out entries prefer cluster or generator to the gene's mean",
    "status": "text",
}
_NORMAL_GAIN = "1 - mean squared error / that of the gene's mean, on hidden observed entries (lognorm)"


class GeneReportMixin:
    """Report on each gene."""

    module: VaDE

    @torch.inference_mode()
    def gene_report(
        self,
        gene_list: Sequence[str] | None = None,
        groupby: str | Sequence | None = None,
        *,
        threshold: float | None = None,
        batch_size: int | None = None,
        silent: bool = True,
    ) -> pd.DataFrame:
        """Say for each gene (and label) whether it was imputed, why not, and whether that predicts held-out molecules.

        The held-out gain is that on the tenth of the molecules of validation cells that training did not see
        (``attrs["heldout_cells"]`` says ``"validation"``; ``"training"`` where there are none, as with
        ``preset="paper"``: such gains flatter). The posterior mean given the rest is compared with the rest's library x
        gene mean, dropout being part of both: what was lost stays lost in both parts of a split.
        ``evidence`` is what the gate of the gene decided by: how much entries that the first phases never saw prefer
        cluster or generator to the gene's mean.

        Parameters
        ----------
        gene_list
            Genes; None for all.
        groupby
            Column of ``adata.obs``, or one label a cell: one row for each label and gene. None: one row a gene.
        threshold
            Of :meth:`get_imputed_expression`.
        batch_size, silent
            As there.

        Returns
        -------
        A row for each gene, or label and gene, whose columns have the units in ``attrs["units"]``: ``n_cells`` and
        ``n_seen`` (cells, and those with a count), ``share_filled`` (of the zeros; NaN without zeros), ``gain`` and
        ``gain_se`` (nats per held-out molecule over the gene's mean; for ``"normal"`` the share of the squared error
        that is explained, without standard error; NaN where nothing was held out), ``evidence`` (nats; NaN without a
        gate) and ``status``:

        - ``"imputed"``;
        - ``"imputed with its mean: ..."``: held-out counts do not show that cluster or generator predict it better
          than its own mean, so the gate gives every cell that mean (see ``gate_genes`` of :meth:`train`);
        - ``"imputed, but no better than its mean"``: the gain is not above 0;
        - ``"imputed, gain unknown: no molecule was held out"``;
        - ``"not imputed: seen in 3 of 2,638 cells"``: no zero reaches the threshold;
        - ``"not imputed: seen in no cell"``, ``"not imputed: no zeros"``.

        Raises
        ------
        KeyError
            If a gene is not in the model, or ``groupby`` not in ``adata.obs``.
        ValueError
            If ``groupby`` does not have one label a cell, or the model was loaded without its training data.
        RuntimeError
            If the model is not trained.

        Examples
        --------
        >>> report = model.gene_report()
        >>> report["status"].value_counts()
        """
        self._check_if_trained(warn=False)
        threshold = Request(threshold=default_threshold(self.module) if threshold is None else threshold).threshold
        check_training_data(self, "`gene_report`")
        selection = select(self, None, None, gene_list, batch_size)
        codes, labels = _groups(selection, groupby)
        shape = (len(labels), len(selection.gene_names))
        seen, filled = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
        start = 0
        for tensors, inferred, own in self._posterior_batches(selection.loader):
            x = tensors[REGISTRY_KEYS.X_KEY]
            fills = zeros_to_fill(self.module, tensors, inferred, own, threshold) & self.module.gene_seen
            group = torch.as_tensor(codes[start : start + len(x)])
            for total, found in ((seen, x > 0), (filled, fills)):
                total.index_add_(0, group, selection.of_genes(found).cpu().double())
            start += len(x)
        rows, where = self._heldout_cells()
        gain, error = (selection.of_genes(values) for values in self._heldout_gain(rows, codes, len(labels)))
        gate = self.module.gate
        evidence = selection.of_genes(gate.evidence.cpu().numpy()[None])[0] if gate.fitted else None
        n_cells = np.bincount(codes, minlength=len(labels))[:, None] * np.ones(shape[1], dtype=int)
        table = _table(n_cells, seen.numpy(), filled.numpy(), gain, error, evidence)
        if groupby is None:
            table.index = selection.gene_names
        else:
            table.index = pd.MultiIndex.from_product([labels, selection.gene_names], names=["label", "gene"])
        units = UNITS | ({"gain": _NORMAL_GAIN} if self.module.gene_likelihood == "normal" else {})
        table.attrs = {"heldout_cells": where, "units": {"n_cells": "cells", **units}, UNS: self._details()}
        return table

    def _posterior_batches(self, loader):
        """Tensors, encoding and generated parameters (z at its mean) of successive batches."""
        module = self.module
        for tensors, inferred in at_posterior_mean(module, loader):
            yield tensors, inferred, module.predict(tensors, inferred)

    def _heldout_cells(self) -> tuple[np.ndarray, str]:
        """Cells of which training did not see all molecules, or all cells where it saw all."""
        rows = getattr(self, "validation_indices", None)
        if rows is not None and len(rows):
            return np.sort(np.asarray(rows)), "validation"
        return np.arange(self.adata.n_obs), "training"

    def _heldout_gain(self, rows: np.ndarray, codes: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
        """Gain and its standard error, labels x genes; NaN where nothing was held out."""
        normal = self.module.gene_likelihood == "normal"
        mean = self._observed_gene_means()
        totals = torch.zeros(4, n_groups, self.summary_stats.n_vars, dtype=torch.float64)
        hidden = withheld(self.adata_manager, rows, self.heldout_seed_, normal)
        loader = CellLoader(self.adata_manager, rows, BATCH_SIZE, withheld=hidden, show_withheld=True)
        start = 0
        for tensors in loader:
            tensors = {key: value.to(self.module.device) for key, value in tensors.items()}
            score = self._entry_errors if normal else self._entry_gains
            found = score(tensors, mean)
            group = torch.as_tensor(codes[rows[start : start + len(found[0])]])
            for total, values in zip(totals, found, strict=False):
                total.index_add_(0, group, values.cpu().double())
            start += len(found[0])
        if normal:
            ours, control, n, _ = totals.numpy()
            gain = np.where(control > 0, 1 - ours / np.maximum(control, 1e-12), np.nan)
            return np.where(n > 0, gain, np.nan), np.full(gain.shape, np.nan)
        gained, squares, molecules, entries = totals.numpy()
        spread = np.sqrt(np.maximum(squares - gained**2 / np.maximum(entries, 1), 0))
        held_out = np.where(molecules > 0, molecules, np.nan)
        return gained / held_out, spread / held_out

    def _entry_gains(self, tensors: dict, mean: Tensor) -> tuple[Tensor, ...]:
        """Gain of each entry in nats, its square, held-out molecules, and 1; cells x genes."""
        module, test = self.module, tensors[HELD_OUT]
        kept = tensors[REGISTRY_KEYS.X_KEY] - test
        _, inferred, own = next(self._posterior_batches([{**tensors, REGISTRY_KEYS.X_KEY: kept}]))
        # With size factors the depth is that of all molecules; the model saw 1 - fraction of them.
        share = (1 - HELDOUT_FRACTION) if module.use_size_factor else 1.0
        rate, library = own["rate"] * share, inferred["library"] * share
        ours = expected(module, kept, rate, own["theta"])
        if module.dropout_curve is not None:
            ours = torch.where(kept > 0, ours, module.dropout_curve.zero_present_mean(rate))
        control = mean * (library / module.median_library)
        ratio = HELDOUT_FRACTION / (1 - HELDOUT_FRACTION)
        losses = [r - test * torch.log(r + _EPS) for r in (ours * ratio, control * ratio)]
        gain = losses[1] - losses[0]
        return gain, gain.square(), test, torch.ones_like(test)

    def _entry_errors(self, tensors: dict, mean: Tensor) -> tuple[Tensor, ...]:
        """Squared error of hidden observed entries, ours and the gene mean's, and whether one was hidden."""
        module, x = self.module, tensors[REGISTRY_KEYS.X_KEY]
        hidden = tensors[HELD_OUT] > 0
        _, _, own = next(self._posterior_batches([{**tensors, REGISTRY_KEYS.X_KEY: x * ~hidden}]))
        target = module.encode(**module._get_inference_input(tensors))["profile"]
        return (
            torch.where(hidden, (target - own["scale"]).square(), 0.0),
            torch.where(hidden, (target - mean).square(), 0.0),
            hidden.float(),
        )

    def _observed_gene_means(self) -> Tensor:
        """Mean of each gene at the reference depth (counts), or of its observed lognorm values."""
        normal = self.module.gene_likelihood == "normal"
        if normal:
            x = self._lognorm_matrix()
        else:
            x, library = self._counts_and_library()
        total = np.ravel(x.sum(0)).astype(np.float64)
        if normal:
            mean = total / np.maximum(np.ravel((x > 0).sum(0)), 1)
        else:
            mean = total / library.sum() * float(self.module.median_library)
        return torch.as_tensor(mean, dtype=torch.float32, device=self.module.device)


def _groups(selection: Selection, groupby) -> tuple[np.ndarray, pd.Index]:
    """Code of each cell's label, and the labels; of a MuData, columns of the modality come first."""
    n_cells = selection.n_total
    if groupby is None:
        return np.zeros(n_cells, dtype=np.int64), pd.Index(["all"])
    if isinstance(groupby, str):
        holders = [holder.obs for holder in (selection.expression, selection.adata) if groupby in holder.obs]
        if not holders:
            raise KeyError(f"`groupby={groupby!r}` is not in `adata.obs`; it has {list(selection.expression.obs)}.")
        groupby = holders[0][groupby]
    labels = np.asarray(groupby)
    if labels.shape != (n_cells,):
        raise ValueError(f"`groupby` has shape {labels.shape}; give one label for each of {n_cells} cells.")
    codes, names = pd.factorize(pd.Series(labels).astype(object).fillna("none"), sort=True)
    return codes.astype(np.int64), pd.Index(names.astype(str))


def _table(n_cells, seen, filled, gain, error, evidence) -> pd.DataFrame:
    """One row for each label and gene."""
    zeros = n_cells - seen
    with np.errstate(invalid="ignore"):
        share = np.where(zeros > 0, filled / np.maximum(zeros, 1), np.nan)
    columns = {
        "n_cells": n_cells,
        "n_seen": seen.astype(np.int64),
        "share_filled": share,
        "gain": gain,
        "gain_se": error,
        "evidence": np.broadcast_to(np.nan if evidence is None else evidence, error.shape),
    }
    table = pd.DataFrame({name: values.ravel() for name, values in columns.items()})
    table["status"] = [
        _status(*row)
        for row in zip(
            *(table[name] for name in ("n_cells", "n_seen", "gain", "evidence")), filled.ravel(), strict=True
        )
    ]
    return table


def _status(n_cells: int, n_seen: int, gain: float, evidence: float, n_filled: float) -> str:
    if not n_seen and not n_filled:
        return "not imputed: seen in no cell"
    if n_seen == n_cells:
        return "not imputed: no zeros"
    if not n_filled:
        return f"not imputed: seen in {n_seen:,} of {n_cells:,} cells"
    if evidence < MIN_EVIDENCE:
        return "imputed with its mean: held-out counts do not show that more is known"
    if np.isnan(gain):
        return "imputed, gain unknown: no molecule was held out"
    return "imputed" if gain > 0 else "imputed, but no better than its mean"
