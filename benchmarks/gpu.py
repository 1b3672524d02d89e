"""The same on a GPU: training and writing of many cells, steps against the measured peak of matrix products.

    python benchmarks/gpu.py [--cells 1000000] [--genes 2000] [--epochs 20] [--batch-size 4096] [--precision bf16-mixed]
    python benchmarks/gpu.py --device cpu --cells 500 --genes 100 --epochs 3 --batch-size 64     (a trial of the script)

Without a CUDA device it says so and exits with status 2; `--device cpu` runs every part at the sizes given, as a check
of the script and of nothing else. Parts: (1) peak of a large matrix product and bandwidth of the device, in float32,
TF32 and bfloat16; (2) step of the VaDE and of the joint phase for growing batches: cells a second and share of that
peak; (3) the whole job: `--epochs` epochs, then the imputed values of all cells to a file, beside scVI's training of as
many epochs. It checks itself: losses are finite and fall, the file has every cell, observed entries are kept.
"""

import argparse
import importlib.metadata
import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

NO_DEVICE = 2
"""Exit status where there is no CUDA device."""


def peaks(device: str, n: int) -> dict[str, float]:
    """Operations a second of large products by precision, and bytes a second."""
    import torch
    from _speed.floor import bandwidth, peak_gemm_rate

    before = torch.get_float32_matmul_precision()
    rates = {}
    for name, precision, dtype in (
        ("float32", "highest", "float32"),
        ("tf32", "high", "float32"),
        ("bfloat16", "highest", "bfloat16"),
    ):
        torch.set_float32_matmul_precision(precision)
        rates[name] = peak_gemm_rate(n, device, dtype)
    torch.set_float32_matmul_precision(before)
    speed = bandwidth(512 if device != "cpu" else 96, device)
    for name, rate in rates.items():
        print(f"peak of products, {name}: {rate / 1e12:.2f} Tflop/s")
    print(f"bandwidth: {speed / 1e9:.0f} GB/s", flush=True)
    return rates


def steps(counts, batch_sizes: list[int], peak: float, arguments) -> None:
    """Seconds of a step in the two phases of a fit, its operations, and their share of the peak."""
    from _speed.floor import counted_steps
    from _speed.worker import epoch_timer

    print(
        "\n| batch | phase | ms a step | cells a second | Gflop a step | share of the peak |\n|--:|---|--:|--:|--:|--:|"
    )
    for batch in batch_sizes:
        timer, flops = epoch_timer(arguments.device), {}
        phases = {"pretrain_epochs": 1, "vade_epochs": 2, "joint_epochs": 2}
        few = counts[: min(counts.shape[0], 40 * batch)]
        with counted_steps(flops):
            model = fit(few, arguments, timer, batch_size=batch, **phases)
        n = len(model.train_indices)
        for phase, epoch in (("vade", 2), ("joint", 4)):  # the second epoch of each
            seconds = timer.seconds[epoch] / -(-n // batch)
            share = flops[phase] / seconds / peak
            print(
                f"| {batch:,} | {phase} | {1e3 * seconds:.2f} | {batch / seconds:,.0f} | {flops[phase] / 1e9:.2f} | ",
                end="",
            )
            print(f"{share:.1%} |", flush=True)


def fit(counts, arguments, *callbacks, **train):
    """Our model, trained on the device."""
    import anndata

    from scgacl_scvi import SCGACL

    adata = anndata.AnnData(counts)
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata, gene_likelihood="nb")
    model.train(
        accelerator=arguments.device,
        devices=1,
        precision=arguments.precision,
        early_stopping=False,
        enable_progress_bar=False,
        callbacks=list(callbacks),
        **train,
    )
    return model


def whole_job(counts, arguments) -> None:
    """Training, imputing and writing, with checks; then scVI."""
    import anndata
    import scvi
    import torch

    start = time.perf_counter()
    model = fit(counts, arguments, max_epochs=arguments.epochs, batch_size=arguments.batch_size)
    trained = time.perf_counter()
    model.get_imputed_expression(return_type="csr")
    imputed = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "imputed.h5ad"
        model.adata.write_h5ad(path)
        written = time.perf_counter()
        check(model, anndata.read_h5ad(path), counts)
    total = written - start
    print(f"\n{counts.shape[0]:,} cells x {counts.shape[1]:,} genes, {arguments.epochs} epochs, {arguments.precision}")
    print(
        f"training {trained - start:.1f} s, imputing {imputed - trained:.1f} s, writing {written - imputed:.1f} s, ",
        end="",
    )
    print(f"in all {total:.1f} s", flush=True)
    if arguments.device == "cuda":
        print(f"memory of the device: {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB at most")

    adata = anndata.AnnData(counts)
    scvi.model.SCVI.setup_anndata(adata)
    peer = scvi.model.SCVI(adata, n_layers=2)
    start = time.perf_counter()
    peer.train(
        max_epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        accelerator=arguments.device,
        devices=1,
        enable_progress_bar=False,
    )
    print(f"scVI, training of as many epochs: {time.perf_counter() - start:.1f} s", flush=True)


def check(model, read, counts) -> None:
    """The result is what it should be."""
    # Of validation cells: in training the phases do not count the same entries.
    losses = model.history["reconstruction_loss_validation"].to_numpy(float).ravel()
    assert np.isfinite(losses).all(), "a loss is not finite"
    assert losses[1:].min() < losses[0], "the reconstruction did not improve"
    layer = read.layers["scgacl"]
    assert layer.shape == counts.shape, "cells or genes are missing in the file"
    depth = np.ravel(counts[:5].sum(1))
    observed = counts[:5].toarray()
    kept = np.log1p(observed / depth[:, None] * float(model.module.median_library))
    found = layer[:5].toarray() if hasattr(layer, "toarray") else layer[:5]
    np.testing.assert_allclose(found[observed > 0], kept[observed > 0], rtol=1e-3)
    print("checks passed: losses finite and lower, every cell written, observed entries kept")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=None, help="of the steps; default 1,024 to 16,384"
    )
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--tf32", action="store_true", help="allow TF32 in products of float32")
    parser.add_argument("--folder", type=Path, default=None, help="where to write; default a temporary folder")
    arguments = parser.parse_args()
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(
            f"No CUDA device: torch {torch.__version__} sees none, so nothing was measured. `--device cpu` with small "
            "sizes tries the script out.",
            file=sys.stderr,
        )
        return NO_DEVICE
    import scvi
    from _speed.data import simulate

    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "scvi"):
        logging.getLogger(name).setLevel(logging.ERROR)
    scvi.settings.seed = 0
    cuda = arguments.device == "cuda"
    print({name: importlib.metadata.version(name) for name in ("scgacl-scvi", "scvi-tools", "torch", "lightning")})
    print("device:", torch.cuda.get_device_name(0) if cuda else "CPU: a trial of the script, not a result")
    rates = peaks(arguments.device, 8192 if cuda else 256)
    if arguments.tf32:
        torch.set_float32_matmul_precision("high")
    kind = "bfloat16" if arguments.precision == "bf16-mixed" else "tf32" if arguments.tf32 else "float32"
    counts = simulate(arguments.cells, arguments.genes)
    default = [1024, 4096, 16_384] if cuda else [arguments.batch_size]
    steps(counts, arguments.batch_sizes or default, rates[kind], arguments)
    whole_job(counts, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
