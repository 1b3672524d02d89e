"""The harness of ``benchmarks/accuracy.py`` on tiny made data."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from _accuracy import figures, methods, plan, report, store, tables, worker
from _accuracy.methods import METHODS, UNAVAILABLE
from _accuracy.sets import SETS, prepare, variable_genes
from anndata import AnnData
from scipy import sparse

from scgacl_scvi.datasets import thin


def write_set(folder, name="pbmc3k", seed=0, n_cells=40):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(1.0, 3.0, (2, 25))[np.arange(n_cells) % 2]).astype(np.float32)
    adata = AnnData(sparse.csr_matrix(counts))
    adata.var_names = [*(f"gene{i}" for i in range(24)), "ERCC-00002"]
    adata.obs["cell_type"] = np.where(np.arange(n_cells) % 2, "a", "b")
    adata.write_h5ad(folder / f"{name}.h5ad")
    return adata


@pytest.fixture
def settings(tmp_path):
    return plan.Settings(data=tmp_path, results=tmp_path / "results.csv", threads=1)


def planned(settings, *keys, seeds=(0,), sets=("pbmc3k",), tasks=("heldout",)):
    return plan.plan(tasks, sets, keys, seeds, settings)


def line(**changes):
    basic = {"task": "heldout", "set": "pbmc3k", "fingerprint": "f", "n_cells": 40, "n_genes": 24, "method": "alra"}
    basic |= {"version": "1", "seed": 0, "metric": "gain_nats", "value": 0.1, "note": "", "threads": 1, "date": "today"}
    return basic | changes


def test_a_second_run_does_nothing_and_other_data_are_run_again(settings, tmp_path):
    write_set(tmp_path)
    jobs = planned(settings, "none")
    assert plan.left(jobs, settings) == jobs
    plan.run(jobs, settings)
    first = settings.results.read_bytes()
    table = store.read(settings.results)
    assert set(table["method"]) == {"none", "gene_mean", "all_zeros", "leak"}
    gains = table[table["metric"] == "gain_nats"].set_index("method")["value"]
    assert gains["gene_mean"] == 0 < gains["leak"]
    assert plan.left(planned(settings, "none"), settings) == []
    plan.run([], settings)
    assert settings.results.read_bytes() == first
    write_set(tmp_path, seed=1)
    assert len(plan.left(planned(settings, "none"), settings)) == 1


def test_a_method_that_fails_or_is_not_there_is_a_row_with_the_reason(settings, tmp_path, monkeypatch):
    monkeypatch.delenv("SCGACL_PEER_MAGIC", raising=False)
    methods._peer_version.cache_clear()
    write_set(tmp_path, n_cells=12)  # fewer cells than kNN-smoothing wants neighbours
    jobs = planned(settings, "knn_smoothing", "magic")
    monkeypatch.setattr(plan, "_outcome", lambda job, settings: worker.run({**vars(job), **in_process(settings)}))
    plan.run(jobs, settings)
    table = store.read(settings.results).set_index("method")
    assert list(table["metric"]) == [store.FAILED] * 2
    assert "n_neighbors" in table.loc["knn_smoothing", "note"]
    assert "SCGACL_PEER_MAGIC" in table.loc["magic", "note"]
    assert table.loc["magic", "version"] == UNAVAILABLE
    assert plan.left(jobs, settings) == []
    again = dataclasses.replace(settings, retry=True)
    assert plan.left(jobs, again) == jobs
    assert "n_neighbors" in tables.failures(store.current(store.read(settings.results)))


def in_process(settings):
    return {"data": str(settings.data), "n_cells": settings.n_cells, "n_genes": settings.n_genes}


def test_a_process_that_dies_is_a_row_too(settings, tmp_path, monkeypatch):
    write_set(tmp_path)
    (job,) = planned(settings, "none")
    plan.run([dataclasses.replace(job, fingerprint="another")], settings)
    (row,) = store.read(settings.results).itertuples()
    assert row.metric == store.FAILED
    assert "exit status 1" in row.note
    assert "the data changed" in row.note


def test_one_fit_serves_two_results(settings, tmp_path, monkeypatch):
    write_set(tmp_path)
    fits = []

    def both(counts, context):
        fits.append(counts)
        return {"scvi_nb": counts + 1.0 * (counts > 0), "scvi_nb_posterior": counts}

    monkeypatch.setitem(METHODS, "scvi_nb", dataclasses.replace(METHODS["scvi_nb"], run=both))
    (job,) = planned(settings, "scvi_nb")
    results = worker.run({**vars(job), **in_process(settings)})["results"]
    assert len(fits) == 1
    assert list(results) == ["scvi_nb", "scvi_nb_posterior"]
    assert results["scvi_nb_posterior"]["score"] == pytest.approx(0)
    assert results["scvi_nb_posterior"]["seconds"] >= results["scvi_nb"]["seconds"]


@pytest.mark.parametrize("task", ["recovery", "null", "structure"])
def test_every_task_scores_the_controls(task, tmp_path, monkeypatch):
    if task != "null":
        adata = write_set(tmp_path)
        adata.layers["truth"] = adata.X * 2
        adata.write_h5ad(tmp_path / "pbmc3k.h5ad")
        monkeypatch.setitem(SETS, "pbmc3k", dataclasses.replace(SETS["pbmc3k"], tasks=(task,)))
    settings = plan.Settings(data=tmp_path, results=tmp_path / "results.csv", n_cells=40)
    (job,) = planned(settings, "none", tasks=[task], sets=["null" if task == "null" else "pbmc3k"])
    results = worker.run({**vars(job), **in_process(settings)})["results"]
    metric = {"recovery": "median_pearson_genes", "null": "false_share", "structure": "spread"}[task]
    assert set(results) == {"none", "gene_mean"}
    assert np.isfinite(results["none"][metric])
    if task == "recovery":
        assert results["gene_mean"][metric] == pytest.approx(0, abs=1e-3)


def test_sets_are_cut_the_same_for_all_and_the_fingerprint_follows_what_is_left(tmp_path):
    adata = write_set(tmp_path)
    data = prepare("pbmc3k", tmp_path, seed=0, n_cells=20)
    assert data.counts.shape == (20, 24)
    assert not any(name.startswith("ERCC-") for name in data.var_names)
    assert prepare("pbmc3k", tmp_path, seed=5, n_cells=20).fingerprint == data.fingerprint
    assert prepare("pbmc3k", tmp_path, seed=0, n_cells=30).fingerprint != data.fingerprint
    adata.var_names = [f"other{i}" for i in range(25)]
    adata.write_h5ad(tmp_path / "pbmc3k.h5ad")
    assert prepare("pbmc3k", tmp_path, seed=0, n_cells=20).fingerprint != data.fingerprint


def test_of_genes_that_vary_equally_those_that_come_first_are_taken():
    pytest.importorskip("skmisc")
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(2.0, 1.0, 400), (80, 400))
    equal = rng.permutation(400)[:40]
    counts[:, equal] = rng.permuted(np.tile(np.arange(80) % 4 == 0, (40, 1)), axis=1).T  # as many, in other cells
    adata = AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    found = (np.intersect1d(variable_genes(adata, n), equal) for n in range(30, 400, 30))
    taken = next(genes for genes in found if 0 < len(genes) < 40)
    np.testing.assert_array_equal(taken, np.sort(equal)[: len(taken)])


def test_only_the_newest_version_on_the_newest_data_is_reported(tmp_path):
    path = tmp_path / "results.csv"
    store.append(path, [line(fingerprint="old", value=9), line(method="magic", fingerprint="old", value=9)])
    store.append(path, [line(version="1", value=1), line(method="magic", version="3.0.0", value=2)])
    store.append(path, [line(version="2", value=3), line(version="2", seed=1, fingerprint="g", value=5)])
    gone = line(method="magic", version=UNAVAILABLE, metric=store.FAILED, value="", note="not there")
    store.append(path, [gone, line(method="dca", version=UNAVAILABLE, metric=store.FAILED, value="", note="no DCA")])
    table = store.current(store.read(path)).set_index(["method", "seed"])
    assert table["value"].to_dict() == {
        ("magic", 0): 2.0,
        ("alra", 0): 3.0,
        ("alra", 1): 5.0,
        ("dca", 0): pytest.approx(float("nan"), nan_ok=True),
    }


def test_a_method_of_yesterday_is_not_asked_for_again_because_it_is_not_there_today(settings):
    job = plan.Job("heldout", "pbmc3k", "magic", UNAVAILABLE, 0, "f", 40, 24)
    assert plan.left([job], settings) == [job]
    store.append(settings.results, [line(method="magic", version="3.0.0")])
    assert plan.left([job], settings) == []


def test_the_version_of_ours_changes_with_code_only(tmp_path, monkeypatch):
    monkeypatch.setattr(methods.scgacl_scvi, "__file__", str(tmp_path / "__init__.py"))
    source = tmp_path / "model" / "a.py"
    source.parent.mkdir()
    seen = []
    for text in ('"""One."""\nx = 1\n', '"""Two."""\n# a comment\nx  =  1\n', "x = 2\n"):
        source.write_text(text)
        methods.source_version.cache_clear()
        seen.append(methods.source_version("model/*.py"))
    methods.source_version.cache_clear()
    assert seen[0] == seen[1] != seen[2]


def test_the_spread_of_a_case_by_hand():
    values = np.array([[0.0, 1.0], [0.0, -1.0], [4.0, 0.0], [4.0, 0.0]])
    assert worker.spread(values, np.array(["a", "a", "b", "b"])) == pytest.approx(0.5 / 4)


def test_the_report_fills_its_page_and_draws(tmp_path, capsys):
    path, docs = tmp_path / "results.csv", tmp_path / "docs"
    docs.mkdir()
    rows = []
    for metric in ("gain_nats", "score", "score_as_coded", "mse_gain", "leaks", "seconds", "cpu_seconds", "peak_mb"):
        for i, method in enumerate(("none", "gene_mean", "all_zeros", "leak", "alra", "ours")):
            value = float(method == "leak") if metric == "leaks" else 0.1 + i
            rows += [line(method=method, metric=metric, value=value, seed=seed) for seed in (0, 1)]
    store.append(path, rows)
    (docs / "benchmarks.md").write_text(
        "Words.\n" + "\n".join(f"<!-- table: {name} -->\nold\n<!-- end -->" for name in report.SECTIONS)
    )
    for _ in range(2):  # filling twice is filling once
        report.write_report(path, docs, quick=False)
    page = (docs / "benchmarks.md").read_text()
    assert page.startswith("Words.")
    assert "old" not in page
    assert "| **scgacl-scvi** | **5.100** |" in page
    assert page.count("**on all sets**") == 1
    assert sorted(each.name for each in (docs / "_static" / "benchmarks").iterdir()) == ["cost.png", "heldout.png"]
    with pytest.raises(ValueError, match="no line '<!-- table: setting -->'"):
        report.fill("", dict.fromkeys(report.SECTIONS, ""))


def test_figures_are_written_as_the_documentation_writes_them():
    assert [tables.number(value) for value in (0.5, -0.25, 1.5, 0.0, float("nan"))] == [
        *(".500", "\N{MINUS SIGN}.250", "1.500", ".000", "\N{EN DASH}"),
    ]
    assert tables.with_range(pd.Series([0.1, 0.3])) == ".200 (.100\N{EN DASH}.300)"
    assert figures.colour("ours") != figures.colour("alra") != figures.colour("none")


def test_log_values_are_scored_as_they_are():
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(3.0, (30, 20)).astype(np.float32))
    train, test = thin(counts, 0.9, 1)

    def log1p_cp10k(x):
        x = x.toarray()
        return np.log1p(1e4 * x / np.maximum(x.sum(1, keepdims=True), 1))

    assert worker._mse_gain(log1p_cp10k(test), counts, 1) == pytest.approx(1)
    assert worker._mse_gain(log1p_cp10k(train), counts, 1) == pytest.approx(0, abs=1e-6)
    half = worker._mse_gain(np.full(counts.shape, log1p_cp10k(test).mean()), counts, 1)
    assert 0 < half < 1
