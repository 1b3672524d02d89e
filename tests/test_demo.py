import random
import re

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scipy import sparse
from typer.testing import CliRunner

from scgacl_scvi import _demo, datasets, evaluate
from scgacl_scvi._demo import _job
from scgacl_scvi._demo._compare import GENE_MEAN, MEASURES, NOTHING, OURS, TYPE_MEAN, against, informative_pair
from scgacl_scvi._demo._words import verdict
from scgacl_scvi.cli import app

FLAT = np.zeros((90, 2))
FILES = ["demo.h5ad", "gene_scatter.png", "recovery.png", "report.html", "training.png", "umap.png"]


def small(seed=0):
    return datasets.simulate_splat(
        90, 60, group_proportions=(0.5, 0.5), de_prob=0.5, de_loc=1.5, library_loc=8.0, dropout_midpoint=2.0, seed=seed
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return _job.demonstrate(small(), tmp_path_factory.mktemp("demo") / "new", 0, max_epochs=12, progress=False)


def table_of(ours, **others):
    """A table with one value for all measures of a method."""
    rows = {OURS: ours, NOTHING: 0.1, GENE_MEAN: 0.2, TYPE_MEAN: 0.3} | others
    return pd.DataFrame(dict.fromkeys(MEASURES, rows))


def test_all_files_are_written_and_nothing_else(result):
    folder = result.paths["demo.h5ad"].parent
    assert sorted(path.name for path in folder.iterdir()) == FILES == sorted(result.paths)
    for name in FILES:
        if name.endswith(".png"):
            pixels = plt.imread(folder / name)
            assert min(pixels.shape[:2]) > 300
            assert pixels[..., :3].std() > 0.02  # something is drawn


def test_the_data_hold_counts_truth_imputed_values_and_embeddings(result):
    adata, given = ad.read_h5ad(result.paths["demo.h5ad"]), small()
    np.testing.assert_array_equal(adata.X.toarray(), given.X.toarray())
    np.testing.assert_array_equal(adata.layers["truth"].toarray(), given.layers["truth"].toarray())
    assert adata.layers["scgacl"].shape == given.shape
    assert {key: x.shape for key, x in adata.obsm.items()} == {"X_umap_raw": (90, 2), "X_umap_scgacl": (90, 2)}
    assert not [key for key in (*adata.obs, *adata.uns) if key.startswith("_scvi")]


def test_the_table_has_every_method_and_measure(result):
    assert result.table.index.tolist() == [OURS, NOTHING, GENE_MEAN, TYPE_MEAN]
    assert result.table.columns.tolist() == list(MEASURES)
    assert np.isfinite(result.table.to_numpy()).all()
    assert result.table.loc[NOTHING, "true_zeros_filled"] == 0
    assert result.table.loc[NOTHING, "pearson_dropouts"] == 0


def test_imputation_beats_leaving_the_zeros(result):
    assert result.table.loc[OURS, "rmse_dropouts"] < result.table.loc[NOTHING, "rmse_dropouts"]


def test_the_page_needs_nothing_else_and_shows_numbers_and_figures(result):
    page = result.paths["report.html"].read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert page.count("<img ") == 4
    assert page.count("<figcaption>") == 4
    assert "seed 0" in page
    assert f"scvi-tools {scvi.__version__}" in page
    for value in result.table.to_numpy().ravel():
        assert f"{value:.3f}" in page


def test_the_same_seed_gives_the_same_numbers(result, tmp_path):
    again = _job.demonstrate(small(), tmp_path, 0, max_epochs=12, progress=False)
    pd.testing.assert_frame_equal(again.table, result.table)
    assert again.genes == result.genes


def test_seeds_and_threads_are_put_back(tmp_path, monkeypatch):
    def stop(*_):
        assert scvi.settings.seed == 7
        assert torch.get_num_threads() == 1
        random.random(), np.random.random(), torch.rand(1)
        raise RuntimeError("far enough")

    monkeypatch.setattr(_job, "comparison", stop)
    threads, seed = torch.get_num_threads(), scvi.settings.seed
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="far enough"):
        _job.demonstrate(small(), tmp_path, 7, max_epochs=1, progress=False)
    assert (torch.get_num_threads(), scvi.settings.seed) == (threads, seed)
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])


def test_a_failure_leaves_earlier_results_as_they_were(tmp_path, monkeypatch):
    for name in FILES:
        (tmp_path / name).write_text("earlier")

    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(evaluate, "write_page", full)  # the last to be written
    monkeypatch.setattr(_job, "embed", lambda adata, seed: adata.obsm.update(X_umap_raw=FLAT, X_umap_scgacl=FLAT))
    with pytest.raises(OSError, match="disk full"):
        _job.demonstrate(small(), tmp_path, 0, max_epochs=1, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    assert all((tmp_path / name).read_text() == "earlier" for name in FILES)
    assert not plt.get_fignums()


def test_the_verdict_names_every_measure_that_is_lost():
    table = table_of(0.9)
    table.loc[OURS, "pearson_all"] = 0.15
    outcome = against(table, GENE_MEAN)
    lower = tuple(key for key, measure in MEASURES.items() if measure.better == "lower")
    assert set(outcome.worse) == {"pearson_all", *lower}
    words = verdict(table)
    line = next(line for line in words.split("\n\n") if line.startswith(f"Against {GENE_MEAN}"))
    assert f"worse in {len(outcome.worse)}" in line
    for key in outcome.worse:
        assert f"{MEASURES[key].name} ({table.loc[OURS, key]:.3f} against 0.200)" in line


def test_the_verdict_claims_no_win_that_is_not_there():
    words = verdict(table_of(0.25, **{NOTHING: 0.25, GENE_MEAN: 0.2504, TYPE_MEAN: 0.25}))
    assert words.count(f"better in 0 of {len(MEASURES)} measures, equal in {len(MEASURES)}.") == 3
    assert "worse" not in words


def test_keeping_all_variance_is_best_and_noise_is_not():
    table = table_of(0.5)
    table["variance_kept"] = [0.9, 1.2, 0.9, 0.95]
    assert "variance_kept" in against(table, NOTHING).better
    assert "variance_kept" in against(table, GENE_MEAN).equal
    assert "variance_kept" in against(table, TYPE_MEAN).worse


def test_the_pair_of_genes_is_the_strongest_correlation_among_hidden_genes():
    rng = np.random.default_rng(0)
    truth = rng.poisson(20, (200, 6)).astype(np.float32)
    truth[:, 3] = 60 - truth[:, 1]  # opposite
    truth[:, 5] = truth[:, 4]  # stronger still, but never hidden
    mask = rng.random(truth.shape) < 0.5
    mask[:, 4:] = False
    adata = ad.AnnData(sparse.csr_matrix(truth * ~mask))
    adata.var_names = list("abcdef")
    adata.layers["truth"] = sparse.csr_matrix(truth)
    adata.layers["dropout_mask"] = sparse.csr_matrix(mask)
    assert informative_pair(adata) == ("b", "d")
    adata.layers["dropout_mask"] = sparse.csr_matrix(np.zeros_like(mask))
    assert informative_pair(adata) == ("e", "f")


def test_the_command_runs_the_demo_on_the_demo_data(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(datasets, "demo", lambda seed: seen.append(seed) or small(seed))
    original = _job.demonstrate
    monkeypatch.setattr(_job, "demonstrate", lambda *args, **kwargs: original(*args, **kwargs, max_epochs=3))
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo"), "--seed", "5"])
    assert done.exit_code == 0, done.output
    assert seen == [5]
    assert "Recovery of the truth, seed 5" in done.stdout
    assert f"Against {TYPE_MEAN.split(' (')[0]}" in done.stdout
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == FILES
    assert done.stderr == ""


def test_the_public_name_is_the_job():
    assert _demo.run_demo is _job.run_demo
