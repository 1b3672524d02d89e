import json
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from scgacl_scvi.cli import _jobs, app
from scgacl_scvi.cli._errors import as_options
from tests.conftest import make_counts

SHORT = ["--max-epochs", "4"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def error_of(result, code=1):
    """The one line on the standard error stream."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def counts(tmp_path):
    """A file of counts with labels, in a folder of its own."""
    adata = make_counts(n_genes=40, dropout=0.3)
    adata.layers["counts"] = adata.X.copy()
    adata.write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


@pytest.fixture(scope="module")
def imputed(tmp_path_factory):
    """One run with all outputs: its folder, what was printed, and the input as it was before."""
    folder = tmp_path_factory.mktemp("imputed")
    adata = make_counts(n_genes=40, dropout=0.3)
    adata.write_h5ad(folder / "in.h5ad")
    before = (folder / "in.h5ad").read_bytes()
    result = run(
        *("impute", folder / "in.h5ad", folder / "out.h5ad", *SHORT, "--labels-key", "cell_type"),
        *("--csv", folder / "result.csv", "--save-model", folder / "model", "--seed", 3),
    )
    assert result.exit_code == 0, result.output
    return folder, result.output, before


def test_help_is_light():
    code = (
        "import json, sys\n"
        "from typer.testing import CliRunner\n"
        "from scgacl_scvi.cli import app\n"
        "for arguments in (['--help'], ['impute', '--help'], ['preprocess', '--help'], ['--version']):\n"
        "    assert CliRunner().invoke(app, arguments).exit_code == 0\n"
        "print(json.dumps([m for m in ('anndata', 'numpy', 'pandas', 'scanpy', 'scvi', 'torch') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_version_is_shown():
    assert run("--version").output.startswith("scgacl-scvi 0.")


@pytest.mark.parametrize("arguments", [["impute"], ["impute", "a", "b", "--policy", "guess"], ["nothing"]])
def test_wrong_usage_exits_with_2(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_preprocess_makes_what_impute_takes(tmp_path):
    adata = make_counts(n_genes=40)
    adata.obs_names = [f"Cell{i}" for i in range(adata.n_obs)]
    adata.to_df().astype(int).T.to_csv(tmp_path / "counts.csv")
    adata.obs["cell_type"].to_csv(tmp_path / "groups.csv")
    result = run("preprocess", tmp_path / "counts.csv", tmp_path / "a.h5ad", "--labels", tmp_path / "groups.csv")
    assert result.exit_code == 0, result.output
    assert "Genes are the rows of counts.csv: the labels file names the columns." in result.stdout
    result = run("impute", tmp_path / "a.h5ad", tmp_path / "b.h5ad", *SHORT, "--labels-key", "cell_type")
    assert result.exit_code == 0, result.output
    assert ad.read_h5ad(tmp_path / "b.h5ad").layers["scgacl"].shape == adata.shape


def test_the_result_is_the_input_and_the_layer(imputed):
    folder, _, before = imputed
    assert (folder / "in.h5ad").read_bytes() == before
    given, out = ad.read_h5ad(folder / "in.h5ad"), ad.read_h5ad(folder / "out.h5ad")
    np.testing.assert_array_equal(out.X.toarray(), given.X.toarray())
    pd.testing.assert_frame_equal(out.obs, given.obs)
    pd.testing.assert_frame_equal(out.var, given.var)
    assert set(out.layers) == {*given.layers, "scgacl"}
    assert list(out.uns) == ["scgacl"]
    values = out.layers["scgacl"]
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert ((values > 0) >= (given.X.toarray() > 0)).all()
    record = out.uns["scgacl"]["scgacl"]
    assert (record["scale"], record["policy"], record["seed"]) == ("lognorm", "impute", 3)


def test_what_was_chosen_is_shown(imputed):
    _, printed, _ = imputed
    for words in ("likelihood", "3 (one per label)", "4 of 4", "best epoch", "zeros filled", "out.h5ad"):
        assert words in printed


def test_nothing_but_results_is_left(imputed):
    folder, _, _ = imputed
    assert sorted(path.name for path in folder.iterdir()) == ["in.h5ad", "model", "out.h5ad", "result.csv"]


def test_the_csv_equals_the_layer(imputed):
    folder, _, _ = imputed
    table = pd.read_csv(folder / "result.csv", index_col="cell", dtype={"cell": str})
    out = ad.read_h5ad(folder / "out.h5ad")
    np.testing.assert_array_equal(table.to_numpy(np.float32), out.layers["scgacl"])
    assert table.index.tolist() == out.obs_names.tolist()
    assert table.columns.tolist() == out.var_names.tolist()


def test_the_saved_model_gives_the_same_values(imputed):
    from scgacl_scvi import SCGACL

    folder, _, _ = imputed
    out = ad.read_h5ad(folder / "out.h5ad")
    model = SCGACL.load(str(folder / "model"), adata=out.copy())
    np.testing.assert_allclose(model.get_imputed_expression(return_numpy=True), out.layers["scgacl"], atol=1e-5)


def test_policy_scale_layer_and_batch_are_passed_on(counts, tmp_path):
    adata = ad.read_h5ad(counts)
    adata.X = adata.X / 3
    adata.write_h5ad(counts)
    options = [
        "--layer",
        "counts",
        "--batch-key",
        "batch",
        "--policy",
        "denoise",
        "--scale",
        "counts",
        "--n-clusters",
        2,
    ]
    result = run("impute", counts, tmp_path / "out.h5ad", *SHORT, *options)
    assert result.exit_code == 0, result.output
    assert "2 (as told)" in result.stdout
    out = ad.read_h5ad(tmp_path / "out.h5ad")
    record = out.uns["scgacl"]["scgacl"]
    assert (record["scale"], record["policy"]) == ("counts", "denoise")
    assert (out.layers["scgacl"] > 0).all()
    np.testing.assert_array_equal(out.X.toarray(), adata.X.toarray())


def test_zarr_goes_in_and_out(counts, tmp_path):
    pytest.importorskip("zarr")
    adata = ad.read_h5ad(counts)
    assert run("preprocess", counts, tmp_path / "in.zarr").exit_code == 0
    result = run("impute", tmp_path / "in.zarr", tmp_path / "out.zarr", *SHORT)
    assert result.exit_code == 0, result.output
    out = ad.io.read_zarr(tmp_path / "out.zarr")
    np.testing.assert_array_equal(out.X.toarray(), adata.X.toarray())
    assert out.layers["scgacl"].shape == adata.shape


def test_the_paper_preset_needs_clusters_and_runs_with_them(counts, tmp_path):
    error = error_of(run("impute", counts, tmp_path / "out.h5ad", "--preset", "paper"))
    assert "`--labels-key ...`" in error
    assert "`--n-clusters`" in error
    result = run("impute", counts, tmp_path / "out.h5ad", "--preset", "paper", "--n-clusters", 2, "--max-epochs", 3)
    assert result.exit_code == 0, result.output
    assert "normal (as published)" in result.stdout


def test_the_input_is_not_replaced_unless_asked(counts):
    before = counts.read_bytes()
    assert "is the input" in error_of(run("impute", counts, counts, *SHORT))
    assert "is the input" in error_of(run("preprocess", counts, counts))
    assert counts.read_bytes() == before
    result = run("impute", counts, counts, *SHORT, "--overwrite")
    assert result.exit_code == 0, result.output
    assert "scgacl" in ad.read_h5ad(counts).layers


@pytest.mark.parametrize("taken", ["out.h5ad", "result.csv", "model/model.pt"])
def test_an_existing_result_is_refused_before_any_work(counts, tmp_path, taken, monkeypatch):
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("precious")
    before = snapshot(tmp_path)
    monkeypatch.setattr(_jobs, "read_anndata", lambda path: pytest.fail("read although the result cannot be written"))
    outputs = [tmp_path / "out.h5ad", "--csv", tmp_path / "result.csv", "--save-model", tmp_path / "model"]
    assert "exists; give another name, or `--overwrite`" in error_of(run("impute", counts, *outputs))
    assert snapshot(tmp_path) == before


def test_a_failure_while_writing_leaves_everything_as_it_was(counts, tmp_path, monkeypatch):
    for name in ("out.h5ad", "result.csv"):
        (tmp_path / name).write_text("precious")
    before = snapshot(tmp_path)

    def half(adata, path):
        path.write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(_jobs, "write_anndata", half)
    outputs = [tmp_path / "out.h5ad", "--csv", tmp_path / "result.csv", "--save-model", tmp_path / "model"]
    error = error_of(run("impute", counts, *outputs, *SHORT, "--overwrite"))
    assert "No space left on device" in error
    assert snapshot(tmp_path) == before
    error_of(run("preprocess", counts, tmp_path / "new.h5ad"))
    assert snapshot(tmp_path) == before


def test_two_results_cannot_share_a_name(counts, tmp_path):
    error = error_of(run("impute", counts, tmp_path / "out.zarr", "--save-model", tmp_path / "out.zarr"))
    assert "Two results cannot go to one place" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels-key", "celltype"], "`--labels-key celltype` is not in obs of"),
        (["--batch-key", "donor"], "it has 'cell_type', 'batch'"),
        (["--stratify-by", "condition"], "`--stratify-by condition` is not in obs of"),
        (["--stratify-by", "batch", "--batch-key", "batch"], "`--stratify-by batch` is `--batch-key`, too"),
        (["--layer", "spliced"], "it has 'counts', 'truth'"),
        (["--labels-key", "cell_type", "--n-clusters", 2], "`--n-clusters 2`, but `--labels-key` has 3 labels"),
        (["--layer", "fractions"], "`--fractional round`"),
        (["--csv", "table.xlsx"], "should end in .csv"),
        (["--csv", "no/such/table.csv"], "create it first"),
    ],
)
def test_an_error_is_one_line_with_a_remedy(counts, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    if "fractions" in options:
        adata = ad.read_h5ad(counts)
        adata.layers["fractions"] = adata.X / 3
        adata.write_h5ad(counts)
    assert message in error_of(run("impute", counts, "out.h5ad", *options))
    assert not (tmp_path / "out.h5ad").exists()


def test_an_unexpected_error_points_to_debug(counts, tmp_path, monkeypatch):
    def fail(path):
        return {}["inner\nworkings"]

    monkeypatch.setattr(_jobs, "read_anndata", fail)
    error = error_of(run("impute", counts, tmp_path / "out.h5ad"))
    assert error == "Error: KeyError: inner workings (add --debug to see where it comes from)\n"
    assert isinstance(run("impute", counts, tmp_path / "out.h5ad", "--debug").exception, KeyError)


def test_counts_as_text_are_sent_to_preprocess(tmp_path):
    (tmp_path / "counts.csv").write_text(",Gene1\nCell1,1\n")
    assert "run `scgacl preprocess" in error_of(run("impute", tmp_path / "counts.csv", tmp_path / "out.h5ad"))
    assert "does not exist" in error_of(run("impute", tmp_path / "no.h5ad", tmp_path / "out.h5ad"))


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ("`labels_key='x'` is wrong", "`--labels-key x` is wrong"),
        ("give `n_clusters`.", "give `--n-clusters`."),
        ("`n_clusters=1`", "`--n-clusters 1`"),
        ("(`setup_anndata(labels_key=...)`)", "(`--labels-key ...`)"),
        ("`adata.X` stays", "`adata.X` stays"),
    ],
)
def test_arguments_are_spelt_as_options(python, shell):
    assert as_options(python) == shell
