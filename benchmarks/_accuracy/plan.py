"""Which fits are to be run, how long that takes, and running them."""

import datetime
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import store
from .methods import LABELS, METHODS, UNAVAILABLE, Method
from .sets import HELDOUT, NULL, SETS, Data, prepare

START_UP = 4.0
"""Seconds of a process around its fit: imports, reading, scoring."""

BENCHMARKS = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    data: Path | None
    results: Path
    threads: int = 1
    jobs: int = 1
    n_cells: int = 1500
    n_genes: int = 2000
    retry: bool = False


@dataclass(frozen=True)
class Job:
    """One fit."""

    task: str
    set: str
    method: str
    version: str
    seed: int
    fingerprint: str
    n_cells: int
    n_genes: int

    @property
    def key(self) -> tuple:
        """What makes a repetition superfluous."""
        return (self.task, self.set, self.fingerprint, self.method, self.version, self.seed)


def plan(
    tasks: Iterable[str], sets: Iterable[str], methods: Iterable[str], seeds: Iterable[int], settings: Settings
) -> list[Job]:
    """List every fit of the given tasks, sets, methods and seeds, seed by seed, cheap ones first."""
    prepared: dict[tuple[str, int], Data] = {}

    def data(name: str, seed: int) -> Data:
        key = (name, seed if name == "null" else 0)
        if key not in prepared:
            prepared[key] = prepare(name, settings.data, seed, settings.n_cells, settings.n_genes)
        return prepared[key]

    tasks, sets, seeds = set(tasks), list(sets), list(seeds)
    ordered = sorted((METHODS[key] for key in methods), key=lambda method: method.seconds)
    jobs = []
    for position, seed in enumerate(seeds):
        for method in ordered:
            for each in (SETS[name] for name in sets):
                for task in (task for task in each.tasks if task in tasks):
                    found = data(each.name, seed)
                    repeats = method.deterministic and task not in (HELDOUT, NULL) and position > 0
                    if method.suits(task, each, found) and not repeats and _asked(method, each, task):
                        shape = found.counts.shape
                        jobs.append(Job(task, each.name, method.key, method.version(), seed, found.fingerprint, *shape))
    return jobs


def _asked(method: Method, each: Any, task: str) -> bool:
    """On sets that held-out molecules cannot judge, the truth is there to show it."""
    return not (method.key == "truth" and task == HELDOUT and each.umi)


def left(jobs: list[Job], settings: Settings) -> list[Job]:
    """The fits whose results are not there yet."""
    table = store.read(settings.results)
    if settings.retry:
        table = table[table["metric"] != store.FAILED]
    have = store.done(table)
    # A method that is not there now, but was before, has its figures.
    worked = store.done(table[table["metric"] != store.FAILED])
    without_version = {key[:4] + key[5:] for key in worked}

    def needed(job: Job) -> bool:
        if job.version == UNAVAILABLE and job.key[:4] + job.key[5:] in without_version:
            return False
        return job.key not in have

    return [job for job in jobs if needed(job)]


def estimate(jobs: list[Job], settings: Settings) -> float:
    """Seconds that the fits will take, from the results so far or else from rough costs."""
    table = store.read(settings.results)
    known = table[table["metric"] == "seconds"].groupby(["task", "set", "method"])["value"].median()
    by_method = table[table["metric"] == "seconds"].groupby("method")["value"].median()
    size = max(0.3, min(1.0, settings.n_cells * settings.n_genes / (1500 * 2000)))
    total = 0.0
    for job in jobs:
        if job.version == UNAVAILABLE:
            continue
        key = (job.task, job.set, job.method)
        cost = known.get(key, by_method.get(job.method, METHODS[job.method].seconds * size))
        total += START_UP + float(cost)
    return total / settings.jobs


def run(jobs: list[Job], settings: Settings) -> None:
    """Run each fit in a process of its own and append its lines."""
    lock = threading.Lock()
    finished = 0

    def one(job: Job) -> None:
        nonlocal finished
        outcome = _outcome(job, settings)
        with lock:
            finished += 1
            store.append(settings.results, _rows(job, outcome, settings))
            print(f"[{finished}/{len(jobs)}] {_line(job, outcome)}", flush=True)

    with ThreadPoolExecutor(settings.jobs) as pool:
        for waiting in [pool.submit(one, job) for job in jobs]:
            waiting.result()


def _outcome(job: Job, settings: Settings) -> dict[str, Any]:
    limits = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {
        **os.environ,
        **dict.fromkeys(limits, str(settings.threads)),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(BENCHMARKS), os.environ.get("PYTHONPATH")))),
        "MPLBACKEND": "Agg",
    }
    with tempfile.TemporaryDirectory(prefix="scgacl-accuracy-") as folder:
        asked, answer, log = (Path(folder, name) for name in ("job.json", "result.json", "log.txt"))
        details = {
            **vars(job),
            "data": None if settings.data is None else str(settings.data.resolve()),
            "n_cells": settings.n_cells,
            "n_genes": settings.n_genes,
        }
        asked.write_text(json.dumps(details))
        with log.open("wb") as output:
            status = subprocess.run(
                [sys.executable, "-m", "_accuracy.worker", str(asked), str(answer)],
                env=environment,
                cwd=folder,  # whatever a tool leaves behind goes with it
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            ).returncode
        if answer.exists():
            return json.loads(answer.read_text())
        tail = log.read_text(errors="replace").splitlines()[-3:]
        return {"failure": f"exit status {status}: {' | '.join(tail)}"}


def _rows(job: Job, outcome: dict[str, Any], settings: Settings) -> list[dict[str, Any]]:
    common = {
        **vars(job),
        "note": "",
        "threads": settings.threads,
        "date": datetime.date.today().isoformat(),
    }
    if "failure" in outcome:
        version = UNAVAILABLE if outcome.get("unavailable") else job.version
        # Without this machine's folders, and on one line.
        reason = " ".join(outcome["failure"].replace(f"{BENCHMARKS.parent}{os.sep}", "").split())[:500]
        return [{**common, "version": version, "metric": store.FAILED, "value": "", "note": reason}]
    return [
        {**common, "method": method, "metric": metric, "value": repr(float(value))}
        for method, metrics in outcome["results"].items()
        for metric, value in metrics.items()
    ]


def _line(job: Job, outcome: dict[str, Any]) -> str:
    head = f"{job.task} {job.set} seed {job.seed}"
    if "failure" in outcome:
        return f"{head} {LABELS[job.method]}: {outcome['failure'][:200]}"
    parts = []
    for method, metrics in outcome["results"].items():
        shown = [k for k in ("gain_nats", "pearson_dropouts", "rmse_dropouts", "false_share", "ari") if k in metrics]
        figures = ", ".join(f"{k} {metrics[k]:.3f}" for k in shown or metrics)
        took = f" ({metrics['seconds']:.0f} s)" if "seconds" in metrics else ""
        parts.append(f"{LABELS[method]}: {figures}{took}")
    return f"{head} " + "; ".join(parts)
