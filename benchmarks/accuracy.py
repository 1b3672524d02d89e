"""Every method on every data set: held-out molecules, recovery of a truth, invented correlation, structure.

    python benchmarks/accuracy.py --data FOLDER             all of it, then tables and figures into docs/
    python benchmarks/accuracy.py --data FOLDER --quick     small data, one seed, quick methods: below 10 minutes
    python benchmarks/accuracy.py --report-only             tables and figures from the results that there are

Each fit runs in a process of its own and leaves its figures in benchmarks/results/accuracy.csv; what is there for the
same data (by fingerprint), method (by version; ours by its code) and seed is not run again. So an interrupted run is
resumed by the same command. How long it will take is said first. Peers run where their environments are (variables
SCGACL_PEER_MAGIC, ...); where not, the table says so. See docs/benchmarks.md.
"""

import argparse
import os
from pathlib import Path

from _accuracy.methods import CONTROL, KINDS, METHODS, UNAVAILABLE
from _accuracy.plan import Settings, estimate, left, plan, run
from _accuracy.sets import SETS, TASKS

HERE = Path(__file__).resolve().parent
QUICK_SETS = ("scmix_sc_celseq2", "paul15", "sim_scgacl_groups3", "null")
QUICK_PEERS = ("knn_smoothing", "alra", "magic", "cellmapper")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SCGACL_DATA"), help="folder with <set>.h5ad")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=[*KINDS, *METHODS], default=list(KINDS), metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", type=int, default=None, help="default 0 1 2; null: 0 to 4")
    parser.add_argument(
        "--threads", type=int, default=1, help="of each fit; two that wait for others are slower than one"
    )
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time; above 1 their times suffer")
    parser.add_argument("--cells", type=int, default=1500)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--results", type=Path, default=None, help="default benchmarks/results/accuracy.csv")
    parser.add_argument("--retry", action="store_true", help="run again what failed")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run, and how long it would take")
    parser.add_argument("--report-only", action="store_true")
    parser.add_argument("--no-report", action="store_true")
    return parser.parse_args()


def chosen_methods(names: list[str], quick: bool) -> list[str]:
    chosen = [key for key, method in METHODS.items() if key in names or method.kind in names]
    if quick:
        chosen = [key for key in chosen if METHODS[key].kind == CONTROL or key in ("truth", "ours", *QUICK_PEERS)]
    return chosen


def main() -> None:
    arguments = parse()
    name = "quick.csv" if arguments.quick else "accuracy.csv"
    results = arguments.results or HERE / "results" / name
    if not arguments.report_only:
        settings = Settings(
            data=arguments.data,
            results=results,
            threads=arguments.threads,
            jobs=arguments.jobs,
            n_cells=min(arguments.cells, 400) if arguments.quick else arguments.cells,
            n_genes=min(arguments.genes, 1000) if arguments.quick else arguments.genes,
            retry=arguments.retry,
        )
        methods = chosen_methods(arguments.methods, arguments.quick)
        sets = [name for name in arguments.sets if not arguments.quick or name in QUICK_SETS]
        jobs = []
        for is_null, default in ((False, range(3)), (True, range(5))):
            names = [name for name in sets if (name == "null") is is_null]
            seeds = arguments.seeds or (range(1) if arguments.quick else default)
            jobs += plan(arguments.tasks, names, methods, seeds, settings)
        jobs.sort(key=lambda job: job.seed)  # stable: one seed of everything before the next
        todo = left(jobs, settings)
        minutes = estimate(todo, settings) / 60
        print(
            f"{len(jobs)} fits, {len(jobs) - len(todo)} of them done; the other {len(todo)} take about "
            f"{minutes:.0f} min ({arguments.jobs} at a time, {arguments.threads} thread(s) each). Results: {results}",
            flush=True,
        )
        missing = sorted({job.method for job in todo if job.version == UNAVAILABLE})
        if missing:
            print(f"Not here: {', '.join(missing)}; their rows will say how to get them.", flush=True)
        if arguments.dry_run:
            for job in todo:
                print(f"  {job.task} {job.set} {job.method} {job.version} seed {job.seed}")
            return
        run(todo, settings)
    if not arguments.no_report:
        from _accuracy.report import write_report

        write_report(results, HERE.parent / "docs", quick=arguments.quick)


if __name__ == "__main__":
    main()
