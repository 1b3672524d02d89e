import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scgacl_scvi import _io


def frame(n_cells=12, n_genes=8, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(3.0, (n_cells, n_genes)) + 1
    return pd.DataFrame(
        counts, index=[f"Cell{i + 1}" for i in range(n_cells)], columns=[f"Gene{i + 1}" for i in range(n_genes)]
    )


def read(path, **kwargs):
    said = []
    adata = _io.preprocess(path, say=said.append, **kwargs)
    return adata, "\n".join(said)


def assert_holds(adata, table):
    assert adata.obs_names.tolist() == list(map(str, table.index))
    assert adata.var_names.tolist() == list(map(str, table.columns))
    assert sparse.isspmatrix_csr(adata.X)
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X.toarray(), table.to_numpy())


@pytest.mark.parametrize("name", ["counts.csv", "counts.tsv", "counts.txt", "counts.csv.gz", "counts.tsv.gz"])
@pytest.mark.parametrize("genes", ["rows", "columns"])
def test_genes_in_rows_and_in_columns_give_the_same_data(tmp_path, name, genes):
    table = frame()
    written = table.T if genes == "rows" else table
    written.to_csv(tmp_path / name, sep="," if ".csv" in name else "\t")
    for told in ("auto", genes):
        adata, said = read(tmp_path / name, genes=told)
        assert_holds(adata, table)
        assert f"Genes are the {genes}" in said


def test_a_header_without_a_corner_as_r_writes_it_is_understood(tmp_path):
    table = frame()
    lines = table.T.to_csv().splitlines()
    (tmp_path / "counts.csv").write_text("\n".join([lines[0].removeprefix(","), *lines[1:]]))
    assert_holds(read(tmp_path / "counts.csv")[0], table)


def test_semicolons_quotes_and_a_byte_order_mark_are_understood(tmp_path):
    table = frame()
    text = table.to_csv(sep=";", quoting=1)
    (tmp_path / "counts.csv").write_text(text, encoding="utf-8-sig")
    assert_holds(read(tmp_path / "counts.csv")[0], table)


def test_a_gene_called_na_keeps_its_name(tmp_path):
    table = frame().rename(columns={"Gene3": "NA"})
    table.T.to_csv(tmp_path / "counts.csv")
    assert_holds(read(tmp_path / "counts.csv")[0], table)


def test_numbered_cells_tell_where_the_genes_are_and_it_is_said(tmp_path):
    table = frame()
    table.index = range(len(table))
    table.columns = [f"word{name}" for name in table.columns]
    table.T.to_csv(tmp_path / "counts.csv")
    adata, said = read(tmp_path / "counts.csv")
    assert_holds(adata, table)
    assert "Genes are the rows of counts.csv: the columns are merely numbered" in said


@pytest.mark.parametrize(
    ("cells", "genes"),
    [
        (None, "ENSG000001{:05d}"),
        (None, "MT-ND{}"),
        (None, "RPL{}"),
        ("ACGTACGTAC{}GT-1", None),
        ("donor1_{}ACGTTGCATGCA", None),
        ("SRR10000{}", None),
    ],
)
def test_the_kind_of_names_tells_where_the_genes_are(tmp_path, cells, genes):
    table = frame()
    table.index = [(cells or "some {}").format("ACGT"[i % 4] * (i // 4 + 1)) for i in range(len(table))]
    if cells == "SRR10000{}":
        table.index = [f"SRR10000{i}" for i in range(len(table))]
    table.columns = [(genes or "thing {}").format(i) for i in range(table.shape[1])]
    table.T.to_csv(tmp_path / "counts.csv")
    adata, said = read(tmp_path / "counts.csv")
    assert_holds(adata, table)
    assert "look like" in said


def test_what_cannot_be_told_is_asked(tmp_path):
    table = frame()
    table.index = [f"a{i}" for i in range(len(table))]
    table.columns = [f"b{i}" for i in range(table.shape[1])]
    table.to_csv(tmp_path / "counts.csv")
    with pytest.raises(ValueError, match=r"12 rows .*'a0'.* 8 columns .*`--genes rows` or `--genes columns`"):
        read(tmp_path / "counts.csv")
    assert_holds(read(tmp_path / "counts.csv", genes="columns")[0], table)


def test_labels_by_name_need_no_order_and_tell_where_the_cells_are(tmp_path):
    table = frame()
    table.index = [f"a{i}" for i in range(len(table))]
    table.columns = [f"b{i}" for i in range(table.shape[1])]
    table.T.to_csv(tmp_path / "counts.csv")
    labels = pd.DataFrame({"cell": table.index, "label": [f"type {i % 3}" for i in range(len(table))]})
    labels.iloc[::-1].to_csv(tmp_path / "labels.csv", index=False)
    adata, said = read(tmp_path / "counts.csv", labels=tmp_path / "labels.csv")
    assert_holds(adata, table)
    assert adata.obs["cell_type"].tolist() == labels["label"].tolist()
    assert "the labels file names the columns" in said
    assert "by name: 3 types" in said


@pytest.mark.parametrize("header", [True, False])
def test_labels_in_the_order_of_the_cells(tmp_path, header):
    table = frame()
    table.to_csv(tmp_path / "counts.csv")
    labels = pd.Series([f"type {i % 3}" for i in range(len(table))], name="label")
    labels.to_csv(tmp_path / "labels.csv", index=False, header=header)
    adata, said = read(tmp_path / "counts.csv", labels=tmp_path / "labels.csv")
    assert adata.obs["cell_type"].tolist() == labels.tolist()
    assert "in order" in said


def test_labels_with_row_numbers_as_r_writes_them_are_taken_in_order(tmp_path):
    table = frame()
    table.to_csv(tmp_path / "counts.csv")
    labels = pd.Series([f"type {i % 3}" for i in range(len(table))], index=range(1, len(table) + 1))
    labels.to_csv(tmp_path / "labels.csv")
    adata, _ = read(tmp_path / "counts.csv", labels=tmp_path / "labels.csv")
    assert adata.obs["cell_type"].tolist() == labels.tolist()


def test_labels_follow_their_cells_when_empty_cells_are_dropped(tmp_path):
    table = frame()
    table.iloc[4] = 0
    table.to_csv(tmp_path / "counts.csv")
    labels = [f"type {i % 3}" for i in range(len(table))]
    (tmp_path / "labels.csv").write_text("\n".join(labels))
    adata, _ = read(tmp_path / "counts.csv", labels=tmp_path / "labels.csv")
    assert adata.obs["cell_type"].tolist() == labels[:4] + labels[5:]


def test_an_empty_label_is_no_label(tmp_path):
    table = frame()
    table.to_csv(tmp_path / "counts.csv")
    lines = ["cell,label", *(f"{name},{'' if i == 2 else 'A'}" for i, name in enumerate(table.index))]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    adata, said = read(tmp_path / "counts.csv", labels=tmp_path / "labels.csv")
    assert adata.obs["cell_type"].isna().tolist() == [i == 2 for i in range(len(table))]
    assert "1 cell without a label" in said


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["A"] * 5, "has 5 labels, but there are 12 cells"),
        (["cell,label", *(f"Cell{i},A" for i in range(4, 16))], r"3 of 12 cells have no label \('Cell1', "),
        (["cell,label", *(f"Cell{i + 1},A" for i in range(12)), "Cell3,B"], "'Cell3' stand there more than once"),
        (["cell,label,other", *(f"Cell{i + 1},A,x" for i in range(12))], "lines have 3 fields"),
        ([], "is empty"),
    ],
)
def test_labels_that_do_not_match_are_an_error(tmp_path, lines, message):
    frame().to_csv(tmp_path / "counts.csv")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "counts.csv", labels=tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no table of counts"),
        (",Gene1,Gene2\n", "is no table of counts"),
        (",Gene1,Gene2\nCell1,1,x\nCell2,3,4\n", "row 'Cell1', column 'Gene2' holds 'x', not a count"),
        (",Gene1,Gene2\nCell1,1,2\nCell2,,4\n", "row 'Cell2', column 'Gene1' is empty"),
        ("Gene1,Gene2,Gene3\n5,1,2\n7,3,4\n", "first column holds numbers"),
        ("x,5,9\nCell1,1,2\nCell2,3,4\n", "first line holds numbers"),
        (",Gene1\nCell1,1,2,3\n", "the header has 2 fields, the next line 4"),
        (",Gene1,Gene2\nCell1,1,2\nCell2,1,2,3\n", "counts.csv cannot be read"),
        (",Gene1,Gene2\nCell1,0,0\nCell2,0,0\n", "No count is left"),
        (",Gene1,Gene2\nCell1,-1,0\nCell2,0,1\n", "negative values"),
        (",Gene1,Gene2\nCell1,0.5,0\nCell2,0,1\n", r"not whole numbers \(1 fractional .*`--fractional round`"),
    ],
)
def test_a_table_that_holds_no_counts_is_refused_with_the_place(tmp_path, text, message):
    (tmp_path / "counts.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "counts.csv")


def test_fractional_counts_are_rounded_on_request(tmp_path):
    table = frame()
    (table + 0.3).to_csv(tmp_path / "counts.csv")
    assert_holds(read(tmp_path / "counts.csv", fractional="round")[0], table)


def test_cells_and_genes_without_a_count_are_dropped_and_it_is_said(tmp_path):
    table = frame()
    table.iloc[:, [1, 5]] = 0
    table.iloc[3] = 0
    table.to_csv(tmp_path / "counts.csv")
    adata, said = read(tmp_path / "counts.csv")
    assert_holds(adata, table.drop(index="Cell4", columns=["Gene2", "Gene6"]))
    assert "Read 12 cells x 8 genes." in said
    assert "Dropped 2 genes without a count." in said
    assert "Dropped 1 cell without a count." in said


def test_genes_seen_in_too_few_cells_are_dropped(tmp_path):
    table = frame()
    table.iloc[2:, 1] = 0
    table.to_csv(tmp_path / "counts.csv")
    assert_holds(read(tmp_path / "counts.csv", min_cells=2)[0], table)
    adata, said = read(tmp_path / "counts.csv", min_cells=3)
    assert_holds(adata, table.drop(columns="Gene2"))
    assert "with a count in fewer than 3 cells" in said


def test_the_most_variable_genes_are_kept_in_their_order(tmp_path):
    rng = np.random.default_rng(0)
    table = frame(60, 100)
    variable = np.sort(rng.choice(100, 5, replace=False))
    table.iloc[:, variable] *= rng.integers(0, 2, (60, 5)) * 2  # the mean is as that of the others
    table.to_csv(tmp_path / "counts.csv")
    adata, said = read(tmp_path / "counts.csv", n_top_genes=5)
    assert adata.var_names.tolist() == table.columns[variable].tolist()
    np.testing.assert_array_equal(adata.X.toarray(), table.loc[adata.obs_names].iloc[:, variable])
    assert "Kept the 5 most variable of 100 genes." in said


def test_above_five_thousand_genes_five_thousand_are_kept_unless_all_are_wanted(tmp_path):
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(0.5, (30, 5200)).astype(np.float32))
    n_seen = int((counts.getnnz(axis=0) > 0).sum())
    assert n_seen > 5000
    ad.AnnData(counts).write_h5ad(tmp_path / "counts.h5ad")
    assert read(tmp_path / "counts.h5ad")[0].n_vars == 5000
    assert read(tmp_path / "counts.h5ad", n_top_genes=0)[0].n_vars == n_seen


def test_repeated_gene_names_are_numbered_and_it_is_said(tmp_path):
    table = frame()
    table.columns = ["Gene1", "Gene1", *table.columns[2:]]
    table.to_csv(tmp_path / "counts.csv")
    adata, said = read(tmp_path / "counts.csv")
    assert adata.var_names[:2].tolist() == ["Gene1", "Gene1-1"]
    assert "1 gene name not unique ('Gene1')" in said


def test_labels_by_name_need_unique_cells(tmp_path):
    table = frame()
    table.index = ["Cell2", *table.index[1:]]
    table.to_csv(tmp_path / "counts.csv")
    (tmp_path / "labels.csv").write_text("cell,label\n" + "\n".join(f"Cell{i},A" for i in range(2, 13)))
    with pytest.raises(ValueError, match="cell names are not unique \\('Cell2'\\)"):
        read(tmp_path / "counts.csv", labels=tmp_path / "labels.csv")
