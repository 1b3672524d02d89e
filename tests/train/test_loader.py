import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scvi.dataloaders import AnnDataLoader
from tests.conftest import make_counts

from scgacl_scvi import SCGACL
from scgacl_scvi.train import CellLoader


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
