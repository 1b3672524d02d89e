import gzip
import sys

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from scipy import sparse

from scgacl_scvi import _io
from tests.test_io import assert_holds, frame, read


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_anndata_files_are_read_and_written(tmp_path, suffix):
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    table = frame()
    adata = ad.AnnData(table.astype(np.int64), obs=pd.DataFrame({"batch": ["x"] * len(table)}, index=table.index))
    _io.write_anndata(adata, tmp_path / f"a{suffix}")
    again, _ = read(tmp_path / f"a{suffix}")
    assert_holds(again, table)
    assert again.obs["batch"].tolist() == ["x"] * len(table)


def test_counts_of_a_layer_are_taken_and_a_wrong_matrix_names_the_right_one(tmp_path):
    table = frame()
    adata = ad.AnnData(table / 3, layers={"counts": table})
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match="X is not whole numbers.*`--layer counts`"):
        read(tmp_path / "a.h5ad")
    assert_holds(read(tmp_path / "a.h5ad", layer="counts")[0], table)
    with pytest.raises(ValueError, match=r"no such layer; it has \['counts'\]"):
        read(tmp_path / "a.h5ad", layer="spliced")


def test_a_10x_folder_is_read(tmp_path):
    table = frame()
    folder = tmp_path / "filtered"
    folder.mkdir()
    with gzip.open(folder / "matrix.mtx.gz", "wb") as file:
        scipy.io.mmwrite(file, sparse.coo_matrix(table.T.to_numpy()))
    with gzip.open(folder / "features.tsv.gz", "wt") as file:
        file.writelines(f"ENSG{i:011d}\t{name}\tGene Expression\n" for i, name in enumerate(table.columns))
    with gzip.open(folder / "barcodes.tsv.gz", "wt") as file:
        file.writelines(f"{name}\n" for name in table.index)
    assert_holds(read(folder)[0], table)


def test_a_10x_h5_file_is_read_and_repeated_symbols_are_numbered(tmp_path):
    table = frame()
    symbols = ["TBCE", "TBCE", *table.columns[2:]]
    x = sparse.csr_matrix(table.to_numpy())  # cells x genes in CSR is genes x cells in CSC, as 10x stores it
    with h5py.File(tmp_path / "matrix.h5", "w") as file:
        group = file.create_group("matrix")
        for name, values in (("data", x.data), ("indices", x.indices), ("indptr", x.indptr), ("shape", x.shape[::-1])):
            group[name] = np.asarray(values)
        group["barcodes"] = np.array(table.index, dtype="S")
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{i:011d}" for i in range(x.shape[1])], dtype="S")
        features["name"] = np.array(symbols, dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * x.shape[1], dtype="S")
        features["genome"] = np.array(["GRCh38"] * x.shape[1], dtype="S")
    adata, said = read(tmp_path / "matrix.h5")
    np.testing.assert_array_equal(adata.X.toarray(), table)
    assert adata.var_names[:2].tolist() == ["TBCE", "TBCE-1"]
    assert "'TBCE'" in said


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "loompy", None)
    (tmp_path / "a.loom").write_bytes(b"")
    with pytest.raises(ImportError, match="pip install loompy"):
        read(tmp_path / "a.loom")


def test_files_that_cannot_be_read_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.csv does not exist"):
        read(tmp_path / "nothing.csv")
    (tmp_path / "a.h5ad").write_text("no HDF5")
    with pytest.raises(ValueError, match=r"a\.h5ad cannot be read"):
        read(tmp_path / "a.h5ad")
    (tmp_path / "a.csv.gz").write_text("no gzip")
    with pytest.raises(ValueError, match=r"a\.csv\.gz cannot be read"):
        read(tmp_path / "a.csv.gz")
    (tmp_path / "a.docx").write_text("")
    with pytest.raises(ValueError, match="of no kind that can be read"):
        read(tmp_path / "a.docx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="of no kind that can be read"):
        read(tmp_path / "folder")
    with pytest.raises(ValueError, match="is for text tables"):
        read(tmp_path / "a.h5ad", genes="rows")
    with pytest.raises(ValueError, match="neither .h5ad nor .zarr"):
        _io.read_anndata(tmp_path / "a.csv.gz")


def test_a_result_replaces_a_file_only_when_it_is_whole(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def broken():
        with _io.replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        broken()
    assert path.read_text() == "old"
    with _io.replacing(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["result.txt"]


def test_a_result_replaces_a_folder_and_a_link_stays_a_link(tmp_path):
    folder = tmp_path / "store.zarr"
    folder.mkdir()
    (folder / "old").touch()
    link = tmp_path / "link.zarr"
    link.symlink_to(folder)
    with _io.replacing(link) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert link.is_symlink()
    assert [p.name for p in folder.iterdir()] == ["new"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.zarr", "store.zarr"]


def test_only_what_may_be_replaced_is_replaced(tmp_path):
    taken = tmp_path / "taken.h5ad"
    taken.touch()
    with pytest.raises(FileExistsError, match="`--overwrite`"):
        _io.check_output(taken, overwrite=False)
    _io.check_output(taken, overwrite=True)
    with pytest.raises(ValueError, match=r"should end in \.csv"):
        _io.check_output(taken, overwrite=True, suffixes=(".csv",))
    with pytest.raises(FileNotFoundError, match="create it first"):
        _io.check_output(tmp_path / "no" / "a.h5ad", overwrite=True)
    with pytest.raises(FileExistsError, match="is a file, and a folder"):
        _io.check_output(taken, overwrite=True, markers=("model.pt",))
    # Even with overwrite: a wrong path must not cost a user's folder.
    (tmp_path / "thesis").mkdir()
    _io.check_output(tmp_path / "thesis", overwrite=True, markers=("model.pt",))
    (tmp_path / "thesis" / "chapter1.tex").touch()
    with pytest.raises(FileExistsError, match="holds something else"):
        _io.check_output(tmp_path / "thesis", overwrite=True, markers=("model.pt",))


def test_a_table_is_read_back_bit_for_bit(tmp_path):
    values = np.random.default_rng(0).lognormal(size=(5, 4)).astype(np.float32)
    table = pd.DataFrame(values, index=[f"c{i}" for i in range(5)], columns=list("abcd"))
    for name in ("result.csv", "result.csv.gz"):
        _io.write_table(table, tmp_path / name)
        again = pd.read_csv(tmp_path / name, index_col="cell")
        np.testing.assert_array_equal(again.to_numpy(np.float32), values)
        assert again.columns.tolist() == table.columns.tolist()
