"""Time and memory against the number of cells, and of genes: simulated sparse counts, default settings.

    python benchmarks/scaling.py [--cells 1000 3000 10000 30000 100000 200000] [--genes 1000 2000 5000 10000 20000]

Cells are varied at 2,000 genes, genes at 3,000 cells. Each fit (training with its default schedule, then a sparse
result for all cells) has a process of its own; the exponents are slopes of log(CPU seconds) and of log(memory added)
over log(size). The number of epochs falls beyond 5,000 cells (see `default_schedule`), so beside the whole training
stands the time of an epoch.
"""

import argparse
import importlib.metadata
import os

import numpy as np
from speed import fit

GENES, CELLS = 2000, 3000


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope on log scales, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def table(sizes: list[int], what: str, shape, threads: int) -> None:
    print(f"\n| {what} | training, s | CPU s | epochs | CPU s an epoch | added, MiB | imputing, CPU s | added, MiB |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    columns: dict[str, list[float]] = {}
    for size in sizes:
        n_cells, n_genes = shape(size)
        run = fit({"method": "ours", "data": f"{n_cells}x{n_genes}", "impute": True}, threads)
        train, impute, epochs = run["train"], run["impute"], run["epochs_cpu"]
        values = {
            "training": train["cpu_seconds"],
            "an epoch": float(np.mean(epochs)),
            "memory of training": train["added_bytes"] / 2**20,
            "imputing": impute["cpu_seconds"],
            "memory of imputing": impute["added_bytes"] / 2**20,
        }
        for name, value in values.items():
            columns.setdefault(name, []).append(max(value, 1e-9))
        cells = [f"{size:,}", f"{train['seconds']:.1f}", f"{values['training']:.1f}", str(len(epochs))]
        cells += [f"{values['an epoch']:.2f}", f"{values['memory of training']:.0f}", f"{values['imputing']:.1f}"]
        print("| " + " | ".join([*cells, f"{values['memory of imputing']:.0f}"]) + " |", flush=True)
    if len(sizes) > 1:
        found = ", ".join(f"{name} {exponent(sizes, values):.2f}" for name, values in columns.items())
        print(f"exponents: {found}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="*", default=[1000, 3000, 10_000, 30_000, 100_000, 200_000])
    parser.add_argument("--genes", type=int, nargs="*", default=[1000, 2000, 5000, 10_000, 20_000])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    versions = {name: importlib.metadata.version(name) for name in ("scgacl-scvi", "scvi-tools", "torch", "numpy")}
    print(versions, f"{arguments.threads} thread(s) of {os.cpu_count()}, load {os.getloadavg()[0]:.1f}")
    if arguments.cells:
        table(arguments.cells, f"cells ({GENES:,} genes)", lambda n: (n, GENES), arguments.threads)
    if arguments.genes:
        table(arguments.genes, f"genes ({CELLS:,} cells)", lambda n: (CELLS, n), arguments.threads)


if __name__ == "__main__":
    main()
