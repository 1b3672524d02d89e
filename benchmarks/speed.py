"""Time and memory of this package beside scVI, the plain path, the published procedure, and the original tool.

    python benchmarks/speed.py end --data FOLDER [--repeats 3] [--original CHECKOUT --original-command COMMAND]
    python benchmarks/speed.py epochs --data FOLDER [--repeats 5]
    python benchmarks/speed.py heldout --data FOLDER [--repeats 2]
    python benchmarks/speed.py large [--size 100000x2000] [--scvi-epochs 1]
    python benchmarks/speed.py imports [--repeats 5]

`end`: from the shell to the file, on sim_scgacl_groups3: our command with its default; the published procedure
(labels) on the plain path; the original, by a command that is run in its checkout with {data} for the input. `epochs`:
seconds an epoch on pbmc3k (2,000 genes) at equal likelihood, batch size and widths (scVI with two layers). `heldout`:
time of a whole training, and the Poisson loss on held-out molecules it reaches. `large`: simulated sparse counts. Each
fit has a process of its own, the methods take turns, and medians and ranges are shown, on the wall and of the
processors: on a busy machine the second are the ones to compare. The plain path is `_speed/plain.py`.
"""

import argparse
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
OURS = "scgacl-scvi"


def environment(threads: int) -> dict[str, str]:
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    return {**os.environ, **limits, "PYTHONPATH": path}


def command(line: list[str], threads: int, folder: str | None = None) -> dict[str, float]:
    """Run a command; seconds on the wall and of the processors, and the largest resident memory (bytes)."""
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(line, env=environment(threads), cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{shlex.join(line)} failed:\n{output.read()[-3000:]}")
    return {"wall": seconds, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss * 1024}


def fit(job: dict, threads: int) -> dict:
    """Run one fit in a process of its own."""
    line = [sys.executable, "-m", "_speed.worker", json.dumps(job)]
    done = subprocess.run(line, env=environment(threads), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{job} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def spread(values: list[float], digits: int = 1) -> str:
    """Median and range."""
    low, middle, high = np.min(values), np.median(values), np.max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def median(runs: list[dict], key: str) -> float:
    return float(np.median([run[key] for run in runs]))


def in_turns(methods: dict, repeats: int) -> dict[str, list]:
    """Results of each method, all methods run once before any is run again."""
    found = {name: [] for name in methods}
    for repeat in range(repeats):
        for name, call in methods.items():
            found[name].append(call())
            print(f"  [{repeat + 1}/{repeats}] {name} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
    return found


def end(arguments) -> None:
    data = arguments.data / "sim_scgacl_groups3.h5ad"
    tool = [sys.executable, "-c", "from scgacl_scvi.cli import app; app()", "impute", str(data)]
    paper = {"data": str(data), "labels_key": "cell_type"}
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "out.h5ad")
        ours = partial(command, [*tool, out, "--overwrite"], arguments.threads)
        worker = [sys.executable, "-m", "_speed.worker", json.dumps(paper | {"out": str(Path(folder) / "paper.h5ad")})]
        slow = {"published procedure, plain path": partial(command, worker, arguments.threads)}
        if arguments.original is not None:
            line = shlex.split(arguments.original_command.format(data=data))
            slow["original"] = partial(command, line, arguments.threads, str(arguments.original))
        found = in_turns({OURS: ours}, arguments.repeats)
        found |= in_turns(slow, arguments.slow_repeats)
        found[OURS] += in_turns({OURS: ours}, arguments.repeats)[OURS]
    print("| end to end | seconds | CPU seconds | peak, MB |\n|---|--:|--:|--:|")
    for name, runs in found.items():
        columns = ([run[key] for run in runs] for key in ("wall", "cpu"))
        peak = max(run["peak"] for run in runs) / 1e6
        print(f"| {name} | {' | '.join(map(spread, columns))} | {peak:.0f} |")
    for name in slow:
        ratios = [
            np.median([r[k] for r in found[name]]) / np.median([r[k] for r in found[OURS]]) for k in ("wall", "cpu")
        ]
        print(f"{name}: {ratios[0]:.0f} times the time, {ratios[1]:.0f} times the CPU time")


def epochs(arguments) -> None:
    for likelihood in arguments.likelihoods:
        job = {"data": str(arguments.data / "pbmc3k.h5ad"), "genes": 2000, "likelihood": likelihood}
        job |= {"batch_size": arguments.batch_size, "widths": 128}
        phases = {"pretrain_epochs": 2, "vade_epochs": 4, "joint_epochs": 4, "early_stopping": False}
        jobs = {
            OURS: job | {"method": "ours", "train": phases},
            "plain path": job | {"method": "plain", "train": phases},
            "scVI": job | {"method": "scvi", "train": {"max_epochs": 4}},
        }
        found = in_turns({name: partial(fit, job, arguments.threads) for name, job in jobs.items()}, arguments.repeats)
        peer = {kind: np.concatenate([run[kind][1:] for run in found["scVI"]]) for kind in ("epochs", "epochs_cpu")}
        shape = found[OURS][0]["shape"]
        print(f"\npbmc3k, {shape[0]} cells x {shape[1]} genes, {likelihood}, batches of {arguments.batch_size}")
        print("| an epoch | seconds | CPU seconds | to scVI's, CPU |\n|---|--:|--:|--:|")
        print(f"| scVI | {spread(peer['epochs'], 2)} | {spread(peer['epochs_cpu'], 2)} | |")
        for name in (OURS, "plain path"):
            for phase, first in (("vade", 3), ("joint", 7)):  # the first of a phase has a start of its own
                taken = [np.concatenate([run[kind][first : first + 3] for run in found[name]]) for kind in peer]
                ratio = np.median(taken[1]) / np.median(peer["epochs_cpu"])
                print(f"| {name}, {phase} | {spread(taken[0], 2)} | {spread(taken[1], 2)} | {ratio:.2f} |")


def heldout(arguments) -> None:
    job = {"data": str(arguments.data / "pbmc3k.h5ad"), "genes": 2000, "heldout": True}
    jobs = {OURS: job | {"method": "ours"}, "scVI": job | {"method": "scvi"}}
    found = in_turns({name: partial(fit, job, arguments.threads) for name, job in jobs.items()}, arguments.repeats)
    print("| pbmc3k, 2,000 genes | training, s | CPU s | epochs | Poisson loss | nats per molecule over gene mean |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, runs in found.items():
        time_of = [[run["train"][key] for run in runs] for key in ("seconds", "cpu_seconds")]
        loss = np.median([run["heldout"]["loss"] for run in runs])
        gain = np.median(
            [(r["heldout"]["gene_mean"] - r["heldout"]["loss"]) * r["heldout"]["per_molecule"] for r in runs]
        )
        print(f"| {name} | {' | '.join(map(spread, time_of))} | {len(runs[0]['epochs'])} | {loss:.5f} | {gain:.3f} |")
    trained = {name: [run["train"] for run in runs] for name, runs in found.items()}
    wall, cpu = (median(trained["scVI"], key) / median(trained[OURS], key) for key in ("seconds", "cpu_seconds"))
    print(f"scVI takes {wall:.1f} times the time, {cpu:.1f} times the CPU time")


def large(arguments) -> None:
    job = {"data": arguments.size}
    found = {OURS: fit(job | {"method": "ours", "impute": True}, arguments.threads)}
    print(f"  {OURS} done", file=sys.stderr, flush=True)
    train = {"max_epochs": arguments.scvi_epochs}
    found["scVI"] = fit(job | {"method": "scvi", "train": train}, arguments.threads)
    data = found[OURS]["data_bytes"]
    print(f"{arguments.size}, data {data / 2**20:.0f} MiB (CSR); memory in MiB, resident at most in the process")
    columns = ("", "training, s", "CPU s", "epochs", "CPU s an epoch", "before", "set up", "training", "less data")
    print("| " + " | ".join([*columns, "imputing, s", "CPU s"]) + " |\n|---" + "|--:" * 10 + "|")
    for name, run in found.items():
        peak = max(run[stage]["peak_bytes"] for stage in ("set_up", "train"))
        n = len(run["epochs"])
        cells = [name, f"{run['train']['seconds']:.0f}", f"{run['train']['cpu_seconds']:.0f}", str(n)]
        cells += [f"{np.mean(run['epochs_cpu']):.1f}"]
        cells += [f"{run[stage]['peak_bytes'] / 2**20:.0f}" for stage in ("set_up", "train")]
        cells.insert(5, f"{run['start_bytes'] / 2**20:.0f}")
        cells += [f"{(peak - data) / 2**20:.0f}"]
        cells += [f"{run['impute'][key]:.1f}" for key in ("seconds", "cpu_seconds")] if "impute" in run else ["", ""]
        print("| " + " | ".join(cells) + " |")
    imputed = found[OURS]["impute"]
    print(
        f"imputing: at most {imputed['peak_bytes'] / 2**20:.0f} MiB, {imputed['added_bytes'] / 2**20:.0f} more than "
        f"before; the result has {imputed['result_bytes'] / 2**20:.0f} (dense: "
        f"{4 * np.prod(found[OURS]['shape']) / 2**20:.0f})"
    )


def imports(arguments) -> None:
    lines = {
        "nothing": "pass",
        "import scgacl_scvi": "import scgacl_scvi",
        "scgacl --help": "import sys; from scgacl_scvi.cli import app; sys.argv[1:] = ['--help']; app()",
        "import scvi": "import scvi",
        "SCGACL": "from scgacl_scvi import SCGACL",
    }
    methods = {name: partial(command, [sys.executable, "-c", line], 1) for name, line in lines.items()}
    print("| | seconds | CPU seconds |\n|---|--:|--:|")
    for name, runs in in_turns(methods, arguments.repeats).items():
        print(f"| {name} | {' | '.join(spread([run[key] for run in runs], 2) for key in ('wall', 'cpu'))} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["end", "epochs", "heldout", "large", "imports"])
    parser.add_argument("--data", type=Path, default=os.environ.get("SCGACL_DATA"), help="folder with <set>.h5ad")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slow-repeats", type=int, default=1, help="of the published procedure and the original")
    parser.add_argument("--original", type=Path, help="checkout of the original tool")
    parser.add_argument("--original-command", help="run there; {data} stands for the input")
    parser.add_argument("--likelihoods", nargs="+", default=["nb", "zinb"], choices=["nb", "zinb"])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--size", default="100000x2000", metavar="CELLSxGENES")
    parser.add_argument("--scvi-epochs", type=int, default=1, help="of `large`: its memory needs no more")
    arguments = parser.parse_args()
    if arguments.what in ("end", "epochs", "heldout") and arguments.data is None:
        parser.error("name the folder of the data with --data, or in SCGACL_DATA")
    if (arguments.original is None) != (arguments.original_command is None):
        parser.error("--original and --original-command belong together")
    versions = {name: importlib.metadata.version(name) for name in ("scgacl-scvi", "scvi-tools", "torch", "numpy")}
    print(versions, f"{arguments.threads} thread(s) of {os.cpu_count()}, load {os.getloadavg()[0]:.1f}", flush=True)
    globals()[arguments.what](arguments)


if __name__ == "__main__":
    main()
