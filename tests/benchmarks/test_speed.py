"""The benchmarks of speed on tiny data, and the promise behind the fast path: it is the plain one, faster."""

import sys
from contextlib import nullcontext

import anndata
import gpu
import numpy as np
import pytest
import step_profile
import torch
from _speed.data import simulate
from _speed.plain import plain_path
from _speed.timers import Timers
from _speed.worker import run
from scaling import exponent

from scgacl_scvi import SCGACL

# Losses that depend on the bias before a batch normalisation, which nothing holds but rounding.
LOOSE = {"adversarial_validation", "discriminator_validation", "cell_contrastive_validation"}


@pytest.mark.parametrize(("likelihood", "share"), [("nb", 0.1), ("zinb", 0.1), ("nb", 0.5)])
def test_the_fast_path_and_the_plain_one_agree(likelihood, share):
    fits = []
    for path in (nullcontext, plain_path):
        adata = anndata.AnnData(simulate(150, 80, share=share))
        SCGACL.setup_anndata(adata)
        model = SCGACL(adata, gene_likelihood=likelihood, n_clusters=3)
        with path():
            model.train(
                pretrain_epochs=2, vade_epochs=2, joint_epochs=3, early_stopping=False, enable_progress_bar=False
            )
        # Not policy "impute": an entry at its threshold would be a jump.
        fits.append((model.history, model.get_imputed_expression(policy="denoise", return_numpy=True)))
    (fast, values), (plain, expected) = fits
    assert fast.keys() == plain.keys()
    for name in fast:
        one, other = (np.asarray(history[name], dtype=float).ravel() for history in (fast, plain))
        np.testing.assert_allclose(one, other, rtol=1e-2 if name in LOOSE else 1e-4, err_msg=name)
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-3)


def test_simulated_counts_are_sparse_as_asked_and_no_cell_is_empty():
    counts = simulate(5000, 200, share=0.1)
    assert counts.shape == (5000, 200)
    assert 0.07 < counts.nnz / np.prod(counts.shape) < 0.13
    assert counts.sum(1).min() > 0


def test_a_part_of_a_profile_has_its_own_time_only():
    timers = Timers()
    with timers.part("outer"):
        sum(range(300_000))
        with timers.part("inner"):
            sum(range(3_000_000))
    assert 0 < timers.seconds["rest", "outer"] < timers.seconds["rest", "inner"]
    assert timers.calls == {("rest", "outer"): 1, ("rest", "inner"): 1}


def test_a_profile_names_every_part_and_a_floor(capsys):
    step_profile.profile(80, 30, "nb", 6, 16)
    shown = capsys.readouterr().out
    for part in (*step_profile.PARTS, "floor: products", "floor: bytes", "step / floor"):
        assert f"| {part} | " in shown


def test_a_fit_reports_time_memory_and_what_it_predicts():
    train = {"max_epochs": 3, "early_stopping": False}
    job = {"method": "ours", "data": "60x30", "likelihood": "nb", "train": train, "heldout": True, "impute": True}
    found = run(job)
    assert len(found["epochs"]) == 3
    assert found["train"]["cpu_seconds"] > 0
    assert found["train"]["peak_bytes"] >= found["start_bytes"] > 0
    assert found["impute"]["result_bytes"] > 0
    assert found["heldout"].keys() == {"loss", "gene_mean", "per_molecule"}


def test_an_exponent_is_a_slope_on_log_scales():
    assert exponent([1, 10, 100], [3.0, 30.0, 300.0]) == pytest.approx(1.0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_benchmark_says_so_and_measures_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.main() == gpu.NO_DEVICE
    shown = capsys.readouterr()
    assert "No CUDA device" in shown.err
    assert not shown.out


@pytest.mark.filterwarnings("ignore")  # scVI's own, of few batches
def test_every_part_of_the_gpu_benchmark_runs_on_small_data(monkeypatch, capsys, tmp_path):
    sizes = ["--cells", "120", "--genes", "30", "--epochs", "9", "--batch-size", "32", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", *sizes, "--precision", "bf16-mixed"])
    assert gpu.main() == 0
    shown = capsys.readouterr().out
    for part in ("peak of products", "| joint |", "checks passed", "scVI, training"):
        assert part in shown
