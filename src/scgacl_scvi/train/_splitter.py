"""Which cells, and which of their entries, each part of a training sees."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from scvi.dataloaders import DataSplitter
from torch import Tensor

from scgacl_scvi.module._groups import N_HELDOUT_GROUPS

from ._loader import CellLoader, heldout_groups
from ._phases import Phase, Phases
from ._withheld import Withheld


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
        Seed of these groups, and of the molecules that are withheld.
    whole_entries
        Whether whole entries of validation cells are withheld, for data that cannot be thinned, not a share of their
        molecules.
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
        whole_entries: bool = False,
        **kwargs,
    ):
        # Our batches are never too small, so scvi-tools need not move cells to avoid that: tell it batches of one.
        super().__init__(adata_manager, batch_size=1, **kwargs)
        self.shuffle_cells = shuffle_cells
        self.batch_sizes = batch_sizes
        self.phases = phases
        self.seed = seed
        self.heldout_seed = heldout_seed
        self.whole_entries = whole_entries
        self.withheld: Withheld | None = None
        self.heldout_groups = heldout_groups("cells", adata_manager.adata.n_obs, heldout_seed) if hold_out else None

    def setup(self, stage: str | None = None) -> None:
        """Split the cells, by a seed that is never None."""
        order = np.arange(self.adata_manager.adata.n_obs)
        if self.shuffle_set_split:
            order = np.random.RandomState(self.seed).permutation(order)
        self.val_idx, self.train_idx, self.test_idx = np.split(order, [self.n_val, self.n_val + self.n_train])
        if not self.shuffle_cells:
            self.train_idx = np.sort(self.train_idx)
        if len(self.val_idx):
            self.withheld = withheld(self.adata_manager, self.val_idx, self.heldout_seed, self.whole_entries)

    def train_dataloader(self) -> CellLoader:
        """Training cells, in batches of the current phase's size; in the joint phase all entries, of all cells.

        Then validation cells, which the phases before had to be judged by, come too, without what is withheld of them.
        """
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        phase = self.phases.at(epoch)[0]
        loader = self._joint if phase is Phase.JOINT else self._early
        loader.batch_size = self.batch_sizes[phase]
        return loader

    @cached_property
    def _early(self) -> CellLoader:
        return self._cells(self.train_idx, self.shuffle_cells, merge_single=True, heldout_groups=self.heldout_groups)

    @cached_property
    def _joint(self) -> CellLoader:
        cells = np.concatenate([self.train_idx, self.val_idx])
        cells = cells if self.shuffle_cells else np.sort(cells)
        return self._cells(cells, self.shuffle_cells, merge_single=True, withheld=self.withheld)

    def training_cells(self, *, held_out: bool) -> CellLoader:
        """Training cells in a fixed order, with or without what they keep from the first phases."""
        return self._cells(np.sort(self.train_idx), heldout_groups=self.heldout_groups if held_out else None)

    def seen_cells(self, *, validation: bool = True, at_most: int | None = None) -> CellLoader:
        """Training (and validation) cells in a fixed order, with all that is known of them.

        Of more cells than ``at_most`` a random sample, by the splitter's seed.
        """
        cells = np.concatenate([self.train_idx, self.val_idx]) if validation else self.train_idx
        if at_most is not None and at_most < len(cells):
            cells = np.random.default_rng(self.seed).choice(cells, at_most, replace=False)
        return self._cells(np.sort(cells))

    def unseen_cells(self) -> Iterator[dict[str, Tensor]]:
        """Batches of validation cells; each cell comes once with each group of genes held out.

        Before the joint phase training sees no entry of them, so all are held-out ones, each in the pass in which its
        gene's group is hidden from the encoder.
        """
        for group in range(N_HELDOUT_GROUPS if len(self.val_idx) else 0):
            groups = np.full(self.adata_manager.adata.n_obs, group)
            yield from self._cells(np.sort(self.val_idx), heldout_groups=groups)

    def val_dataloader(self) -> CellLoader | None:
        """Validation cells in a fixed order, with what is withheld of them, or None."""
        return self._validation if len(self.val_idx) else None

    @cached_property
    def _validation(self) -> CellLoader:
        return self._cells(self.val_idx, withheld=self.withheld, show_withheld=True)

    def test_dataloader(self) -> CellLoader | None:
        """Test cells in a fixed order, or None."""
        return self._cells(self.test_idx) if len(self.test_idx) else None

    def _cells(self, indices: np.ndarray, shuffle: bool = False, **kwargs) -> CellLoader:
        return CellLoader(self.adata_manager, np.asarray(indices, int), 512, shuffle, **kwargs)


def withheld(adata_manager, cells: np.ndarray, seed: int, whole_entries: bool) -> Withheld:
    """What training never sees of some cells, in any order, by which predictions are judged."""
    loader = CellLoader(adata_manager, np.sort(np.asarray(cells, int)), 512)
    return Withheld(
        adata_manager.adata.shape, ((rows, loader.read(rows)) for rows in loader.batches()), seed, whole_entries
    )
