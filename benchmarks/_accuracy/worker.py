"""One fit in a process of its own: ``python -m _accuracy.worker job.json result.json``."""

import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .methods import METHODS, Context, Method, Values
from .sets import FRACTION, HELDOUT, NULL, RECOVERY, SETS, prepare

CONTROL_KEYS = {
    "no denoising": "none",
    "gene mean": "gene_mean",
    "all zeros": "all_zeros",
    "held-out counts (a leak)": "leak",
}
NO_RATES = ("ours_impute", "ours_sample", "ours_log")
"""Results that Poisson losses do not score: of null runs only, or log values to be compared as they are."""


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of each result, or the reason why there are none."""
    from scgacl_scvi.evaluate.baselines import PeerUnavailable

    folder = None if job["data"] is None else Path(job["data"])
    data = prepare(job["set"], folder, job["seed"], job["n_cells"], job["n_genes"])
    if data.fingerprint != job["fingerprint"]:
        raise RuntimeError(f"{job['set']}: the data changed since the run was planned; start it again")
    _limit_threads()
    context = Context(job["task"], data, SETS[job["set"]], job["seed"])
    try:
        results = TASK_OF[job["task"]](METHODS[job["method"]], context)
    except PeerUnavailable as reason:
        return {"failure": str(reason), "unavailable": True}
    except Exception as error:  # noqa: BLE001 - whatever a method raises becomes a row
        traceback.print_exc()
        return {"failure": f"{type(error).__name__}: {error}"}
    return {"results": results}


def _limit_threads() -> None:
    """Hold PyTorch to the threads asked for: the choice of genes (compiled code of others) sets it to all of them."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))


def heldout(method: Method, context: Context) -> dict[str, dict[str, float]]:
    """Molecular cross-validation; what one fit gives costs what the fit cost."""
    from scgacl_scvi.evaluate import molecular_cv

    counts, seed = context.data.counts, context.seed
    if method.key == "none":
        table = molecular_cv(counts, {}, FRACTION, seed).assign(method=lambda x: x["method"].map(CONTROL_KEYS))
        return _metrics(table)
    if method.key == "truth":
        context = Context(context.task, context.data, context.set, seed, _rates_of_truth(context))
    found: dict[str, Any] = {}
    of_logs: dict[str, Values] = {}

    def fit(train: Any) -> Any:
        result = method.run(train, context)
        result = result if isinstance(result, dict) else {method.key: result}
        of_logs.update({key: one for key, one in result.items() if isinstance(one, Values)})
        found.update({key: one for key, one in result.items() if key not in of_logs})
        return found[method.key]

    def again(key: str):
        return lambda train: found[key]

    others = [key for key in method.labels if key not in (method.key, *NO_RATES)]
    table = molecular_cv(counts, {method.key: fit, **{key: again(key) for key in others}}, FRACTION, seed)
    note = table["note"].iloc[0]
    if note:
        from scgacl_scvi.evaluate.baselines import PeerUnavailable

        raise PeerUnavailable(note)
    table = table[table["method"].isin([method.key, *others])].copy()
    for column, combine in (("seconds", "sum"), ("cpu_seconds", "sum"), ("peak_mb", "max")):
        table.loc[table["method"].isin(others), column] = table[column].iloc[0] + (
            table[column].iloc[1:] if combine == "sum" else 0
        )
    log_gains = {key: {"mse_gain": _mse_gain(one.matrix, counts, seed)} for key, one in of_logs.items()}
    return _metrics(table) | log_gains


def _mse_gain(values: np.ndarray, counts: Any, seed: int) -> float:
    """1 - MSE / MSE(no denoising) of log values as they are: to normalise what lies below the counts would undo it."""
    from scgacl_scvi.evaluate import cp10k_mse
    from scgacl_scvi.scales import convert

    train, test, seen = _split(counts, seed)
    train, test = train[:, seen], test[:, seen].toarray()
    library = np.maximum(test.sum(1, keepdims=True), 1)
    truth = convert(test, "counts", "log1p_cp10k", library=library, median_library=1.0)
    return 1 - float(np.mean((values - truth) ** 2)) / cp10k_mse(train, test)


def _rates_of_truth(context: Context) -> Any:
    return FRACTION * context.data.truth[:, _split(context.data.counts, context.seed)[2]]


def _split(counts: Any, seed: int) -> tuple[Any, Any, np.ndarray]:
    """Training and held-out counts as molecular cross-validation draws them, and the genes that it keeps."""
    from scgacl_scvi.datasets import thin

    train, test = thin(counts, FRACTION, seed)
    return train, test, np.ravel(train.sum(0)) > 0


def _metrics(table: Any) -> dict[str, dict[str, float]]:
    table = table.set_index("method").drop(columns="note").astype(float)
    return {str(key): row.to_dict() for key, row in table.iterrows()}


def _fitted(method: Method, context: Context) -> tuple[dict[str, Any], dict[str, float]]:
    """Results on the lognorm scale, and what the fit took."""
    from scgacl_scvi.evaluate import lognorm, measured

    result, usage = measured(method.run, context.data.counts, context)
    result = result if isinstance(result, dict) else {method.key: result}
    values = {key: one.matrix if isinstance(one, Values) else lognorm(one) for key, one in result.items()}
    took = {"seconds": usage.seconds, "cpu_seconds": usage.cpu_seconds, "peak_mb": usage.peak_bytes / 1e6}
    return values, took


def recovered(method: Method, context: Context) -> dict[str, dict[str, float]]:
    """Recovery of the truth, and the variance kept inside types where types are known."""
    from scgacl_scvi.evaluate import lognorm, recovery, within_type_variance_ratio

    data = context.data
    values, took = _fitted(method, context)
    scores = {key: {**asdict(recovery(one, data.truth, data.counts)), **took} for key, one in values.items()}
    if data.labels is not None:
        reference = lognorm(data.truth)
        for key, one in values.items():
            scores[key]["variance_kept"] = within_type_variance_ratio(one, reference, data.labels)
    return scores


def null(method: Method, context: Context) -> dict[str, dict[str, float]]:
    """Correlations that are not there, and those that are."""
    from scgacl_scvi.evaluate import null_correlation

    values, took = _fitted(method, context)
    differential = context.data.differential
    return {key: {**asdict(null_correlation(one, differential)), **took} for key, one in values.items()}


def structure(method: Method, context: Context) -> dict[str, dict[str, float]]:
    """Types found again by a fixed clustering, spread inside them, and variance kept."""
    from scgacl_scvi.evaluate import clustering_agreement, lognorm, within_type_variance_ratio

    labels = context.data.labels
    raw = lognorm(context.data.counts)
    values, took = _fitted(method, context)
    scores = {}
    for key, one in values.items():
        agreement = clustering_agreement(one, labels, seed=0)
        scores[key] = {
            "ari": agreement.ari,
            "nmi": agreement.nmi,
            "spread": spread(one, labels),
            "variance_kept": within_type_variance_ratio(one, raw, labels),
            **took,
        }
    return scores


def spread(values: Any, labels: np.ndarray) -> float:
    """Mean distance of cells to their type's mean, relative to the mean distance between the means of two types."""
    from scipy import sparse
    from scipy.spatial.distance import pdist

    dense = np.asarray(values.toarray() if sparse.issparse(values) else values, dtype=np.float64)
    names, codes = np.unique(labels, return_inverse=True)
    means = np.stack([dense[codes == code].mean(0) for code in range(len(names))])
    between = pdist(means).mean()
    return float(np.linalg.norm(dense - means[codes], axis=1).mean() / between) if between > 0 else float("inf")


TASK_OF = {HELDOUT: heldout, RECOVERY: recovered, NULL: null, "structure": structure}


if __name__ == "__main__":
    _job, _result = map(Path, sys.argv[1:])
    _result.write_text(json.dumps(run(json.loads(_job.read_text()))))
