from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scvi.dataloaders import AnnDataLoader
from tests.conftest import make_counts

from scgacl_scvi import SCGACL
from scgacl_scvi._keys import HELD_OUT, HELDOUT_GROUP
from scgacl_scvi.module._groups import N_HELDOUT_GROUPS
from scgacl_scvi.module._nonzeros import positions
from scgacl_scvi.train import CellLoader, CellSplitter, Phase, Phases
from scgacl_scvi.train._loader import _dense, heldout_groups
from scgacl_scvi.train._splitter import withheld


def _manager(adata, **kwargs):
    SCGACL.setup_anndata(adata, labels_key="cell_type", batch_key="batch", **kwargs)
    return SCGACL(adata, gene_likelihood="nb").adata_manager


@pytest.mark.parametrize("form", ["csr", "csc", "dense", "fortran", "int", "float64"])
def test_batches_are_those_of_scvi_tools_whatever_the_storage(form):
    adata = make_counts()
    dense = adata.X.toarray()
    adata.X = {
        "csr": adata.X,
        "csc": sparse.csc_matrix(adata.X),
        "dense": dense,
        "fortran": np.asfortranarray(dense),
        "int": dense.astype(np.int32),
        "float64": dense.astype(np.float64),
    }[form]
    manager = _manager(adata)
    indices = np.array([5, 3, 40, 7, 11])
    ours = list(CellLoader(manager, indices, batch_size=2))
    theirs = list(AnnDataLoader(manager, indices=indices, batch_size=2))
    for key in theirs[0]:
        for a, b in zip(ours[:2], theirs[:2], strict=True):
            assert a[key].dtype == b[key].dtype
            torch.testing.assert_close(a[key], b[key])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(1, 70), st.booleans())
def test_a_pass_shows_every_cell_once_and_no_training_batch_has_one_cell(n, batch_size, shuffle):
    manager = test_a_pass_shows_every_cell_once_and_no_training_batch_has_one_cell.manager
    loader = CellLoader(manager, np.arange(n), batch_size=max(batch_size, 2), shuffle=shuffle, merge_single=True)
    batches = [batch["X"] for batch in loader]
    whole = torch.as_tensor(manager.adata.X[:n].toarray())
    assert len(batches) == len(loader)
    seen = torch.cat(batches)
    order = np.lexsort(seen.numpy().T), np.lexsort(whole.numpy().T)
    torch.testing.assert_close(seen[order[0]], whole[order[1]])
    assert min(map(len, batches)) > 1


test_a_pass_shows_every_cell_once_and_no_training_batch_has_one_cell.manager = _manager(make_counts())


@pytest.mark.parametrize("form", ["sorted", "unsorted", "explicit zeros", "duplicates"])
def test_a_batch_knows_its_non_zeros_however_the_matrix_is_stored(form):
    indices, data = {
        "sorted": ([0, 2, 1], [1.0, 2.0, 3.0]),
        "unsorted": ([2, 0, 1], [2.0, 1.0, 3.0]),
        "explicit zeros": ([0, 2, 1], [0.0, 2.0, 3.0]),
        "duplicates": ([0, 0, 1], [1.0, 1.0, 3.0]),
    }[form]
    rows = sparse.csr_matrix((np.array(data, np.float32), np.array(indices), np.array([0, 2, 3])), shape=(2, 3))
    batch = _dense(rows[[1, 0]])
    assert torch.equal(batch, torch.from_numpy(rows.toarray()[[1, 0]]))
    assert torch.equal(positions(batch), torch.nonzero(batch.reshape(-1)).squeeze(1))
    assert hasattr(batch, "nonzero_positions") == (form in ("sorted", "unsorted"))


def test_the_users_matrix_is_not_changed_by_rounding():
    adata = make_counts()
    adata.X = adata.X * 1.2
    before = adata.X.copy()
    manager = _manager(adata, fractional="round")
    x = torch.cat([batch["X"] for batch in CellLoader(manager, batch_size=16)])
    torch.testing.assert_close(x, torch.as_tensor(np.rint(before.toarray())))
    assert (before != adata.X).nnz == 0


def test_shuffling_follows_torchs_seed():
    manager = _manager(make_counts())
    passes = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        passes.append(torch.cat([batch["X"] for batch in CellLoader(manager, batch_size=16, shuffle=True)]))
    assert torch.equal(passes[0], passes[1])
    assert not torch.equal(passes[0], passes[2])


def test_backed_data_come_in_the_order_asked_for(tmp_path):
    import anndata

    make_counts().write_h5ad(tmp_path / "a.h5ad")
    adata = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    manager = _manager(adata)
    rows = np.array([9, 2, 30, 2])
    x = torch.cat([batch["X"] for batch in CellLoader(manager, rows, batch_size=3)])
    torch.testing.assert_close(x, torch.as_tensor(make_counts().X.toarray()[rows]))
    adata.file.close()


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["cells", "genes"]), st.integers(1, 500), st.integers(0, 2**31))
def test_groups_are_dealt_as_evenly_as_can_be_and_by_the_seed_alone(of, n, seed):
    groups = heldout_groups(of, n, seed)
    sizes = np.bincount(groups, minlength=N_HELDOUT_GROUPS)
    assert groups.shape == (n,)  # one group each
    assert len(sizes) == N_HELDOUT_GROUPS
    assert np.ptp(sizes) <= 1
    np.testing.assert_array_equal(groups, heldout_groups(of, n, seed))


def test_cells_and_genes_and_other_seeds_are_dealt_differently():
    dealt = [heldout_groups(of, 200, seed) for of in ("cells", "genes") for seed in (0, 1)]
    for i, one in enumerate(dealt):
        assert (np.diff(one) != 1).any()  # at random, not in turn
        for other in dealt[:i]:
            assert (one == other).mean() < 0.35  # .2 by chance


def _splitter(hold_out: bool) -> CellSplitter:
    adata = make_counts()
    adata.obs["number"] = np.arange(60.0)
    splitter = CellSplitter(
        _manager(adata, continuous_covariate_keys=["number"]),
        shuffle_cells=True,
        batch_sizes=dict.fromkeys(Phase, 16),
        phases=Phases(1, 1, 1),
        seed=0,
        train_size=0.7,
        validation_size=0.2,
        hold_out=hold_out,
        heldout_seed=3,
    )
    splitter.setup()
    return splitter


def _numbered(loader: CellLoader, key: str | None = None) -> np.ndarray:
    """Number of each cell of a pass, or another column of it."""
    return torch.cat([batch[key or "extra_continuous_covs"] for batch in loader]).ravel().numpy()


def test_each_training_cell_carries_its_own_group_and_no_other_cell_has_one():
    splitter = _splitter(True)
    groups = heldout_groups("cells", 60, 3)
    np.testing.assert_array_equal(splitter.heldout_groups, groups)
    loader = splitter.train_dataloader()
    for _ in range(2):  # shuffled
        batches = list(loader)
        numbers = _numbered(batches).astype(int)
        np.testing.assert_array_equal(_numbered(batches, HELDOUT_GROUP), groups[numbers])
        assert set(numbers) == set(splitter.train_idx)
    assert batches[0][HELDOUT_GROUP].shape == (len(batches[0]["X"]), 1)
    for other in (splitter.val_dataloader(), splitter.test_dataloader()):
        assert all(HELDOUT_GROUP not in batch for batch in other)


def test_nothing_is_held_out_unless_asked_for():
    splitter = _splitter(False)
    assert all(HELDOUT_GROUP not in batch for batch in splitter.train_dataloader())


def test_training_cells_come_in_the_files_order_with_or_without_groups():
    splitter = _splitter(True)
    rows = np.sort(splitter.train_idx)
    held_out, whole = (splitter.training_cells(held_out=asked) for asked in (True, False))
    for loader in (held_out, whole):
        np.testing.assert_array_equal(_numbered(loader), rows)
    np.testing.assert_array_equal(
        _numbered(held_out, HELDOUT_GROUP), splitter.heldout_groups[np.sort(splitter.train_idx)]
    )
    assert all(HELDOUT_GROUP not in batch for batch in whole)


def _in_joint_phase(splitter: CellSplitter) -> CellLoader:
    splitter.trainer = SimpleNamespace(current_epoch=2)
    return splitter.train_dataloader()


def test_the_joint_phase_sees_validation_cells_without_what_they_are_judged_by():
    splitter = _splitter(True)
    x = splitter.adata_manager.adata.X.toarray()
    seen, numbers = {}, []
    for batch in _in_joint_phase(splitter):
        assert HELDOUT_GROUP not in batch
        cells = batch["extra_continuous_covs"].ravel().numpy().astype(int)
        numbers += list(cells)
        seen |= dict(zip(cells, batch["X"].numpy(), strict=True))
    assert sorted(numbers) == sorted([*splitter.train_idx, *splitter.val_idx])  # no test cell
    for cell in splitter.train_idx:
        np.testing.assert_array_equal(seen[cell], x[cell])
    judged = 0
    for batch in splitter.val_dataloader():
        for cell, full, held_out in zip(
            batch["extra_continuous_covs"].ravel().numpy().astype(int), batch["X"], batch[HELD_OUT], strict=True
        ):
            np.testing.assert_array_equal(full, x[cell])
            np.testing.assert_array_equal(seen[cell] + held_out.numpy(), x[cell])
            judged += held_out.sum().item()
    assert 0.05 < judged / x[splitter.val_idx].sum() < 0.15
    np.testing.assert_array_equal(splitter.adata_manager.adata.X.toarray(), x)


def test_what_is_withheld_is_the_same_in_every_phase_and_for_the_same_seed():
    first, second = (_splitter(True) for _ in range(2))
    cells = np.sort(first.val_idx)
    held_out = first.withheld.of(cells)
    assert torch.equal(held_out, second.withheld.of(cells))
    again = withheld(first.adata_manager, np.flip(cells), 3, False)
    assert torch.equal(held_out, again.of(cells))
    assert not torch.equal(held_out, withheld(first.adata_manager, cells, 4, False).of(cells))


def test_unseen_cells_come_once_with_each_group_held_out():
    splitter = _splitter(True)
    batches = list(splitter.unseen_cells())
    groups, numbers = _numbered(batches, HELDOUT_GROUP), _numbered(batches)
    for group in range(N_HELDOUT_GROUPS):
        np.testing.assert_array_equal(numbers[groups == group], np.sort(splitter.val_idx))
    assert len(numbers) == N_HELDOUT_GROUPS * len(splitter.val_idx)


def test_seen_cells_are_all_of_them_or_a_sample_that_the_seed_decides():
    first, second = (_splitter(True) for _ in range(2))
    both = np.sort(np.concatenate([first.train_idx, first.val_idx]))
    np.testing.assert_array_equal(_numbered(first.seen_cells()), both)
    np.testing.assert_array_equal(_numbered(first.seen_cells(validation=False)), np.sort(first.train_idx))
    np.testing.assert_array_equal(_numbered(first.seen_cells(at_most=len(both))), both)
    few = _numbered(first.seen_cells(at_most=9))
    assert len(set(few)) == 9
    assert set(few) <= set(both)
    assert not np.array_equal(few, both[:9])
    np.testing.assert_array_equal(few, _numbered(second.seen_cells(at_most=9)))


def test_getters_hold_nothing_out():
    adata = make_counts()
    _manager(adata)
    model = SCGACL(adata, gene_likelihood="nb")
    [batch] = model._make_data_loader(adata=adata, batch_size=60)
    assert HELDOUT_GROUP not in batch
    assert model.module.visible(batch) is None
