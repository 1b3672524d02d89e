"""What each part of the method is worth: each switched off, and all on.

    python benchmarks/ablation.py [--data FOLDER] [--sets ...] [--variants ...] [--seeds 0 1 2]

FOLDER (or the environment variable SCGACL_DATA) holds the data of ``accuracy.py``; cells, genes and splits are those of
its table. Three sets of UMI counts (gain on held-out molecules, ``policy="denoise"``), one of pancreas cells thinned to
a tenth (``denoise``) and two simulations with dropout (``impute``). Results go to ``benchmarks/results/ablation.csv``
fit by fit, so that an interrupted run goes on, and into the table of ``docs/ablation.md``. Each row says the version
of the code, a digest; other code runs again.
"""

import argparse
import importlib.metadata
import logging
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

from _accuracy.methods import our_version
from _accuracy.report import fill
from _accuracy.sets import HELDOUT, SETS, prepare
from _accuracy.tables import number

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "ablation.csv", ROOT / "docs" / "ablation.md"
DATA = (
    "scmix_sc_celseq2_5cl",
    "pbmc3k",
    "paul15",
    "baron_downsampled_ref",
    "sim_scgacl_groups3",
    "sim_autoclass_dataset1",
)
ADVERSARIAL, CELL, TYPE = (f"weight_{name}" for name in ("adversarial", "cell_contrastive", "type_contrastive"))
NONE = dict.fromkeys((ADVERSARIAL, CELL, TYPE), 0.0)
COLUMNS = ["set", "variant", "seed", "version", "gain", "pearson", "rmse", "pearson_all", "cpu_seconds"]
VARIANTS = {
    "all on (the default)": {},
    "without the adversarial loss": {"train": {ADVERSARIAL: 0.0}},
    "without NT-Xent": {"train": {CELL: 0.0}},
    "without SupCon": {"train": {TYPE: 0.0}},
    "without these three": {"train": NONE},
    "these three at weight 10": {"train": dict.fromkeys(NONE, 10.0)},
    "one Gaussian as prior": {"model": {"n_clusters": 1}},
    "reconstructions not masked": {"train": {"plan_kwargs": {"mask_reconstruction": False}}},
    "without the gate": {"train": {"gate_genes": False}},
    "z sampled, not its posterior mean": {"get": {"use_posterior_mean": False}},
    "one Gamma around the mean, no mixture": {"mixture": False},
    "generator's mean, not the posterior mean": {"generator": True},
}


def measure(name: str, data, variants: list[str], seed: int):
    """Scores of each variant, as the set's task asks; those that differ in the getter only share a fit."""
    from scgacl_scvi.evaluate import poisson_gain, recovery
    from scgacl_scvi.evaluate.baselines import gene_mean

    heldout = HELDOUT in SETS[name].tasks and SETS[name].umi
    train, test = split(data.counts, seed) if heldout else (data.counts, None)
    policy, scale = ("denoise", "counts") if heldout else (SETS[name].policy, "lognorm")
    default = None
    for variant in variants:
        settings, start = VARIANTS[variant], time.process_time()
        if settings.keys() & {"train", "model"}:
            model = fit(train, settings, seed)
        else:
            model = default = fit(train, settings, seed) if default is None else default
        seconds = time.process_time() - start
        fitted = bool(model.module.residual.fitted)
        model.module.residual.fitted.fill_(fitted and settings.get("mixture", True))
        if not settings.get("generator"):
            get = {"policy": policy, "scale": scale, "return_numpy": True, "layer_key": None}
            values = model.get_imputed_expression(**{**get, **settings.get("get", {})})
        elif policy == "denoise":
            values = generators_mean(model, scale)
        else:
            continue  # where observed entries are kept there is no such choice
        model.module.residual.fitted.fill_(fitted)
        if heldout:
            ratio = test.sum() / train.sum()
            scores = {"gain": poisson_gain(values, test, gene_mean(train), depth_ratio=ratio)}
        else:
            found = recovery(values, data.truth, data.counts)
            scores = {"pearson": found.pearson_dropouts, "rmse": found.rmse_dropouts, "pearson_all": found.pearson_all}
        yield variant, {**scores, "cpu_seconds": seconds}


def split(counts, seed: int):
    """Nine molecules in ten, and the tenth; genes without a training count are dropped."""
    from scgacl_scvi.datasets import thin

    train, test = thin(counts, 0.9, seed)
    kept = np.ravel(train.sum(0)) > 0
    return train[:, kept], test[:, kept]


def fit(counts, variant: dict, seed: int):
    import anndata
    import scvi
    import torch

    from scgacl_scvi import SCGACL

    torch.set_num_threads(1)  # the choice of genes sets it to all
    scvi.settings._seed = seed
    adata = anndata.AnnData(counts.astype(np.float32))
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata, **variant.get("model", {}))
    model.train(enable_progress_bar=False, **variant.get("train", {}))
    return model


def generators_mean(model, scale: str) -> np.ndarray:
    """What the generator says of a cell, without regard to the count that was seen."""
    normalised = model.get_normalized_expression(library_size="latent" if scale == "counts" else 1, return_numpy=True)
    return normalised if scale == "counts" else np.log1p(normalised * float(model.module.median_library))


def table(results: pd.DataFrame) -> str:
    """Mean over seeds, and in parentheses the difference from all on where it is above two standard errors."""
    columns = {}
    for name in DATA:
        part = results[results["set"] == name]
        metric = "gain" if part["gain"].notna().any() else "pearson"
        wide = part.pivot_table(index="variant", columns="seed", values=metric).reindex(list(VARIANTS))
        difference = wide - wide.loc[next(iter(VARIANTS))]
        n = difference.notna().sum(1)
        error = difference.std(axis=1, ddof=1) / np.sqrt(n.clip(lower=1))
        clear = (difference.mean(1).abs() > 2 * error) & (difference.mean(1).abs() >= 5e-4) & (n > 1)
        cells = [number(value, 4) + (" *" if flag else "") for value, flag in zip(wide.mean(1), clear, strict=True)]
        columns[f"{SETS[name].title}, {'gain' if metric == 'gain' else 'Pearson'}"] = cells
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "--:|" * len(columns)]
    lines += [
        "| " + " | ".join([variant, *row]) + " |" for variant, *row in zip(VARIANTS, *columns.values(), strict=True)
    ]
    seeds = ", ".join(map(str, sorted(results["seed"].unique())))
    version = results["version"].iloc[-1]
    scvi = importlib.metadata.version("scvi-tools")
    return "\n".join([*lines, "", f"Seeds {seeds}; code {version}, scvi-tools {scvi}; one thread."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SCGACL_DATA"))
    parser.add_argument("--sets", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report-only", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    version = our_version()
    print({name: importlib.metadata.version(name) for name in ("scgacl-scvi", "scvi-tools", "torch")}, version)
    done = pd.read_csv(arguments.results) if arguments.results.exists() else pd.DataFrame()
    done = done[done["version"] == version] if len(done) else done
    for seed in [] if arguments.report_only else arguments.seeds:
        for name in arguments.sets:
            data = prepare(name, arguments.data, seed)
            key = {"set": name, "seed": seed, "version": version}
            had = done[(done[list(key)] == pd.Series(key)).all(axis=1)]["variant"].tolist() if len(done) else []
            left = [variant for variant in arguments.variants if variant not in had]
            for variant, scores in measure(name, data, left, seed):
                print(name, seed, variant, {k: round(v, 4) for k, v in scores.items()}, flush=True)
                row = pd.DataFrame([{**key, "variant": variant, **scores}]).reindex(columns=COLUMNS)
                row.to_csv(arguments.results, mode="a", header=not arguments.results.exists(), index=False)
    results = pd.read_csv(arguments.results)
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), {"ablation": table(results)}), encoding="utf-8")


if __name__ == "__main__":
    main()
