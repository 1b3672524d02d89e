"""Batches of cells straight from memory.

The registered matrix is held once and indexed by batch; per-cell AnnData reads cost more than the arithmetic of a step.
Backed data are read batch by batch in file order and put back into the order asked for.
"""

import weakref
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.dataloaders import DataSplitter
from torch import Tensor

from scgacl_scvi._keys import FRACTIONAL_ARG, HELDOUT_GROUP, MISSING, MISSING_GENES, STRATUM

from ._phases import Phase, Phases

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


def read_rows(x, rows: np.ndarray) -> np.ndarray:
    """Dense float32 rows, in the order asked for, also from a backed matrix (which must be read sorted, once each)."""
    if not (sparse.issparse(x) or isinstance(x, np.ndarray)):
        unique, inverse = np.unique(rows, return_inverse=True)
        block = x[unique]
        block = block.compute() if hasattr(block, "compute") else block
        block = block.toarray() if sparse.issparse(block) else np.asarray(block)
        return block[inverse].astype(np.float32, copy=False)
    block = x[rows]
    block = block.toarray() if sparse.issparse(block) else block
    return block.astype(np.float32, copy=False)


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
            block = read_rows(self.x, rows)
            x = torch.from_numpy(np.rint(block) if self.round_rows else block)
            chosen = torch.from_numpy(rows)
            columns = {key: column.index_select(0, chosen) for key, column in self.columns.items()}
            yield {REGISTRY_KEYS.X_KEY: x, **columns, **self.shared}


def missing_genes(manager: AnnDataManager) -> dict[str, Tensor]:
    """Which genes the data did not measure, 1 x genes, as an entry of a batch; nothing where all were."""
    var = getattr(manager.adata, "var", None)
    if var is None or MISSING not in var:
        return {}
    missing = np.asarray(var[MISSING], dtype=bool)
    return {MISSING_GENES: torch.from_numpy(missing)[None]} if missing.any() else {}


N_HELDOUT_GROUPS = 5
"""Genes and cells are dealt into as many groups; a cell keeps the genes of its own group from the first phases."""


def heldout_groups(of: Literal["cells", "genes"], n: int, seed: int) -> np.ndarray:
    """Group of each of ``n`` cells or genes, at random and as equal in size as can be."""
    return np.random.default_rng((seed, of == "genes")).permutation(np.arange(n) % N_HELDOUT_GROUPS)


def _column(values, dtype: torch.dtype) -> Tensor:
    values = np.array(values.to_numpy() if hasattr(values, "to_numpy") else values)  # a copy: pandas' may be read-only
    values = values.astype(np.float64) if values.dtype == object else values  # pandas' nullable numbers
    return torch.as_tensor(values.reshape(len(values), -1), dtype=dtype)


class CellSplitter(DataSplitter):
    """scvi-tools' split into training, validation and test cells, served from memory.

    Parameters
    ----------
    shuffle_cells
        Whether training batches are shuffled; the published procedure keeps the file's order.
    batch_sizes
        Cells in a batch, for each phase.
    phases
        Phases of training, to know which batch size applies.
    seed
        Seed of the split.
    hold_out
        Whether each training cell keeps one of :data:`N_HELDOUT_GROUPS` groups of genes from the phases before the
        joint one (of a fit without a joint phase: from all of it).
    heldout_seed
        Seed of these groups.
    """

    def __init__(
        self,
        adata_manager,
        *,
        shuffle_cells: bool,
        batch_sizes: dict,
        phases: Phases,
        seed: int,
        hold_out: bool = False,
        heldout_seed: int = 0,
        **kwargs,
    ):
        # Our batches are never too small, so scvi-tools need not move cells to avoid that: tell it batches of one.
        super().__init__(adata_manager, batch_size=1, **kwargs)
        self.shuffle_cells = shuffle_cells
        self.batch_sizes = batch_sizes
        self.phases = phases
        self.seed = seed
        self.heldout_groups = heldout_groups("cells", adata_manager.adata.n_obs, heldout_seed) if hold_out else None
        self._loaders: dict[str, CellLoader] = {}

    def setup(self, stage: str | None = None) -> None:
        """Split the cells, by a seed that is never None."""
        order = np.arange(self.adata_manager.adata.n_obs)
        if self.shuffle_set_split:
            order = np.random.RandomState(self.seed).permutation(order)
        self.val_idx, self.train_idx, self.test_idx = np.split(order, [self.n_val, self.n_val + self.n_train])
        if not self.shuffle_cells:
            self.train_idx = np.sort(self.train_idx)

    def train_dataloader(self) -> CellLoader:
        """Training cells, in batches of the current phase's size; the joint phase sees all of their entries."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        phase = self.phases.at(epoch)[0]
        loader = self._loader("joint" if phase is Phase.JOINT else "train", self.train_idx, self.shuffle_cells)
        loader.batch_size = self.batch_sizes[phase]
        return loader

    def training_cells(self, *, held_out: bool) -> CellLoader:
        """Training cells in a fixed order, with or without what they keep from the first phases."""
        groups = self.heldout_groups if held_out else None
        return CellLoader(self.adata_manager, np.sort(self.train_idx), 512, heldout_groups=groups)

    def val_dataloader(self) -> CellLoader | None:
        """Validation cells in a fixed order, or None."""
        return self._loader("validation", self.val_idx, False) if len(self.val_idx) else None

    def test_dataloader(self) -> CellLoader | None:
        """Test cells in a fixed order, or None."""
        return self._loader("test", self.test_idx, False) if len(self.test_idx) else None

    def _loader(self, name: str, indices: np.ndarray, shuffle: bool) -> CellLoader:
        if name not in self._loaders:
            training = name in ("train", "joint")
            self._loaders[name] = CellLoader(
                self.adata_manager,
                np.asarray(indices, int),
                512,
                shuffle,
                merge_single=training,
                heldout_groups=self.heldout_groups if name == "train" else None,
            )
        return self._loaders[name]
