"""Batches of cells straight from memory.

The registered matrix is held once and indexed by batch; per-cell AnnData reads cost more than the arithmetic of a step.
Backed data are read batch by batch in file order and put back into the order asked for.
"""

import weakref
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from torch import Tensor

from scgacl_scvi._keys import FRACTIONAL_ARG, HELD_OUT, HELDOUT_GROUP, MISSING, MISSING_GENES, STRATUM
from scgacl_scvi.module._groups import N_HELDOUT_GROUPS
from scgacl_scvi.module._nonzeros import with_positions

from ._withheld import Withheld

# A converted matrix is kept as long as the manager, for each getter makes a loader.
_CONVERTED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_CODES = (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY, REGISTRY_KEYS.CAT_COVS_KEY, STRATUM)


def registered_matrix(manager: AnnDataManager):
    """The registered cells x genes matrix: CSR or dense in memory, rounded where ``fractional="round"`` was asked.

    Never changes the user's matrix: a CSC matrix is converted, a fractional one rounded, into a copy. Backed and other
    array-likes are returned as they are.
    """
    source = manager.get_from_registry(REGISTRY_KEYS.X_KEY)
    kept = _CONVERTED.get(manager)
    if kept is not None and kept[0]() is source:
        return kept[1]
    x = source
    if sparse.issparse(x) and x.format != "csr":
        x = x.tocsr()
    if _rounds(manager) and (sparse.issparse(x) or isinstance(x, np.ndarray)):
        x = rounded(x)
    if x is not source:
        _CONVERTED[manager] = weakref.ref(source), x
    return x


def rounded(x):
    """Whole counts: a copy of a matrix with every entry rounded to the nearest integer."""
    if not sparse.issparse(x):
        return np.rint(x)
    x = x.copy()
    x.data = np.rint(x.data)
    x.eliminate_zeros()
    return x


def _rounds(manager: AnnDataManager) -> bool:
    return manager.registry["setup_args"].get(FRACTIONAL_ARG) == "round"


def read_rows(x, rows: np.ndarray):
    """Rows in the order asked for (float32, CSR or dense), also of a backed matrix, which is read sorted, once each."""
    if sparse.issparse(x) or isinstance(x, np.ndarray):
        return x[rows].astype(np.float32, copy=False)
    unique, inverse = np.unique(rows, return_inverse=True)
    block = x[unique]
    block = block.compute() if hasattr(block, "compute") else block
    block = block.tocsr() if sparse.issparse(block) else np.asarray(block)
    return block[inverse].astype(np.float32, copy=False)


class CellLoader:
    """Iterates over batches of cells as dictionaries of tensors keyed as scvi-tools keys them.

    Parameters
    ----------
    adata_manager
        Manager of a registered AnnData.
    indices
        Cells to load, as integers or a mask; None for all.
    batch_size
        Cells in a batch.
    shuffle
        New random order in each pass, drawn from torch's generator; the batches are then of nearly equal size, so none
        is too small for batch normalisation or a contrast.
    merge_single
        Join a last batch of one cell to the one before it: alone it has no batch statistics to train with.
    heldout_groups
        Group of genes that each cell of the data keeps from training; None where nothing is held out.
    withheld
        Molecules of some cells that training never sees.
    show_withheld
        Whether a batch has all molecules, and says which are withheld; else it is without them.
    **_
        Settings of torch's ``DataLoader`` that have no meaning for data in memory.
    """

    def __init__(
        self,
        adata_manager: AnnDataManager,
        indices: Sequence[int] | None = None,
        batch_size: int = 128,
        shuffle: bool = False,
        merge_single: bool = False,
        heldout_groups: np.ndarray | None = None,
        withheld: Withheld | None = None,
        show_withheld: bool = False,
        **_,
    ):
        n = adata_manager.adata.n_obs
        indices = np.arange(n) if indices is None else np.asarray(indices)
        self.indices = np.flatnonzero(indices) if indices.dtype == bool else indices.astype(np.int64)
        self.manager = adata_manager
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.merge_single = merge_single
        self.x = registered_matrix(adata_manager)
        self.round_rows = _rounds(adata_manager) and not (sparse.issparse(self.x) or isinstance(self.x, np.ndarray))
        self.columns = {
            key: _column(adata_manager.get_from_registry(key), torch.int64 if key in _CODES else torch.float32)
            for key in adata_manager.data_registry
            if key != REGISTRY_KEYS.X_KEY
        }
        self.shared = missing_genes(adata_manager)
        self.withheld, self.show_withheld = withheld, show_withheld
        if heldout_groups is not None:
            self.columns[HELDOUT_GROUP] = _column(heldout_groups, torch.int64)

    def __len__(self) -> int:
        n = len(self.indices)
        batches = -(-n // self.batch_size)
        if self.shuffle:
            return max(1, min(batches, n // 2))
        return batches - (self.merge_single and batches > 1 and n % self.batch_size == 1)

    def batches(self) -> Iterator[np.ndarray]:
        """Rows of the cells of each batch of a pass."""
        if self.shuffle:
            order = self.indices[torch.randperm(len(self.indices)).numpy()]
            return iter(np.array_split(order, len(self)))
        return iter(np.split(self.indices, self.batch_size * np.arange(1, len(self))))

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for rows in self.batches():
            chosen = torch.from_numpy(rows)
            columns = {key: column.index_select(0, chosen) for key, column in self.columns.items()}
            yield self.withhold({REGISTRY_KEYS.X_KEY: self.read(rows), **columns, **self.shared}, rows)

    def withhold(self, batch: dict[str, Tensor], rows: np.ndarray) -> dict[str, Tensor]:
        """Take from a batch what training never sees, or say what that is."""
        if self.withheld is None:
            return batch
        if self.show_withheld:
            return {**batch, HELD_OUT: self.withheld.of(rows)}
        return {**batch, REGISTRY_KEYS.X_KEY: self.withheld.taken_from(batch[REGISTRY_KEYS.X_KEY], rows)}

    def read(self, rows: np.ndarray) -> Tensor:
        """The registered matrix of some cells, dense."""
        block = read_rows(self.x, rows)
        block = rounded(block) if self.round_rows else block
        return _dense(block) if sparse.issparse(block) else torch.from_numpy(block)


def _dense(block: sparse.csr_matrix) -> Tensor:
    """A sparse block as a dense tensor that knows its non-zeros."""
    values = torch.from_numpy(block.toarray())
    if not block.has_sorted_indices:
        block.sort_indices()
    if not block.has_canonical_format or not block.data.all():
        return values
    first = np.arange(block.shape[0]) * block.shape[1]
    found = np.repeat(first, np.diff(block.indptr)) + block.indices
    return with_positions(values, torch.from_numpy(found))


def missing_genes(manager: AnnDataManager) -> dict[str, Tensor]:
    """Which genes the data did not measure, 1 x genes, as an entry of a batch; nothing where all were."""
    adata = manager.adata
    if not isinstance(adata, AnnData) or MISSING not in adata.var:
        return {}
    missing = np.array(adata.var[MISSING], dtype=bool)  # a copy: pandas' may be read-only
    return {MISSING_GENES: torch.from_numpy(missing)[None]} if missing.any() else {}


def heldout_groups(of: Literal["cells", "genes"], n: int, seed: int) -> np.ndarray:
    """Group of each of ``n`` cells or genes, at random and as equal in size as can be."""
    return np.random.default_rng((seed, of == "genes")).permutation(np.arange(n) % N_HELDOUT_GROUPS)


def _column(values, dtype: torch.dtype) -> Tensor:
    values = np.array(values.to_numpy() if hasattr(values, "to_numpy") else values)  # a copy: pandas' may be read-only
    values = values.astype(np.float64) if values.dtype == object else values  # pandas' nullable numbers
    return torch.as_tensor(values.reshape(len(values), -1), dtype=dtype)
