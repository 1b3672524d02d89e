"""Where the time of a step of training goes, and how far that is from what the machine could do.

    python benchmarks/step_profile.py [--sizes 500x1000 3000x2000 50000x2000] [--likelihood nb] [--epochs N]

On simulated sparse counts. CPU milliseconds a step (with one thread: those of an idle machine), by part and phase; the
floor is floating-point operations / measured rate of matrix products of these shapes + unavoidable bytes / measured
bandwidth. With --epochs as many are run in all, shared out as the default shares them; without, a full default fit.
"""

import argparse
import importlib.metadata
import logging
import os

PARTS = (
    "loader",
    "profile and sampling",
    "networks, forward",
    "likelihood",
    "prior",
    "adversarial, contrasts",
    "backward",
    "clipping",
    "optimiser",
    "step, rest",
    "Lightning",
    "validation",
    "logging",
    "keeping the best weights",
)
PHASES = ("autoencoder", "vade", "joint")


def fit(counts, likelihood: str, **train):
    import anndata

    from scgacl_scvi import SCGACL

    adata = anndata.AnnData(counts)
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata, gene_likelihood=likelihood)
    model.train(enable_progress_bar=False, **train)
    return model


def profile(n_cells: int, n_genes: int, likelihood: str, epochs: int | None, batch_size: int | None) -> None:
    from _speed.data import simulate
    from _speed.floor import bandwidth, counted_steps, gemm_rate, step_bytes
    from _speed.timers import Timers, timed_training

    from scgacl_scvi.model._presets import default_schedule

    counts = simulate(n_cells, n_genes)
    batch = batch_size or default_schedule(n_cells).batch_size
    flops: dict[str, int] = {}
    with counted_steps(flops):
        once = {"pretrain_epochs": 1, "vade_epochs": 1, "joint_epochs": 1}
        model = fit(counts[: round(batch / 0.9) + 1], likelihood, batch_size=batch, **once)
    n_parameters = sum(p.numel() for p in model.module.parameters())
    rate, speed = gemm_rate(batch, n_genes), bandwidth()

    timers = Timers()
    with timed_training(timers):
        fit(counts, likelihood, max_epochs=epochs, batch_size=batch_size, early_stopping=False)
    steps = {phase: max(1, timers.calls[phase, "step, rest"]) for phase in PHASES}

    print(f"\n{n_cells:,} cells x {n_genes:,} genes, batches of {batch}, {likelihood}; CPU ms a step")
    print(f"products {rate / 1e9:.0f} Gflop/s, bandwidth {speed / 1e9:.1f} GB/s")
    rows = [(part, [1e3 * timers.seconds[phase, part] / steps[phase] for phase in PHASES]) for part in PARTS]
    total = [sum(column) for column in zip(*(values for _, values in rows), strict=True)]
    arithmetic = [1e3 * flops[phase] / rate for phase in PHASES]
    traffic = [1e3 * step_bytes(batch, n_genes, n_parameters, likelihood == "zinb") / speed] * 3
    floor = [a + t for a, t in zip(arithmetic, traffic, strict=True)]
    rows += [("**a step**", total), ("floor: products", arithmetic), ("floor: bytes", traffic)]
    print("| part | " + " | ".join(PHASES) + " |\n|---|--:|--:|--:|")
    for name, values in rows:
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    print("| step / floor | " + " | ".join(f"{t / f:.1f}" for t, f in zip(total, floor, strict=True)) + " |")
    for phase, part in sorted(timers.seconds):
        if part.startswith("fit of"):
            print(f"{part}: {timers.seconds[phase, part]:.2f} s")
    fitting = sum(timers.seconds.values())
    print(
        f"in all {fitting:.1f} s of CPU; steps {', '.join(f'{phase} {steps[phase]}' for phase in PHASES)}", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["500x1000", "3000x2000", "50000x2000"], metavar="CELLSxGENES")
    parser.add_argument("--likelihood", default="nb", choices=["nb", "zinb"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--batch-size", type=int, default=None)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    import scvi
    import torch

    torch.set_num_threads(arguments.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("scvi").setLevel(logging.ERROR)
    scvi.settings.seed = 0
    print({name: importlib.metadata.version(name) for name in ("scgacl-scvi", "scvi-tools", "torch", "lightning")})
    for size in arguments.sizes:
        n_cells, n_genes = map(int, size.split("x"))
        profile(n_cells, n_genes, arguments.likelihood, arguments.epochs, arguments.batch_size)


if __name__ == "__main__":
    main()
