"""The methods of the benchmark. To add one, add an entry to ``METHODS``: a function ``counts -> rates`` is enough."""

import ast
import hashlib
import importlib
import importlib.metadata
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import scgacl_scvi

from .sets import FRACTION, HELDOUT, NULL, RECOVERY, STRUCTURE, TASKS, Data, Set

CONTROL, PEER, OURS, CHECK = KINDS = ("controls", "peers", "package", "checks")

UNAVAILABLE = "unavailable"
"""Version of a method that cannot run here."""


@dataclass(frozen=True)
class Values:
    """A result that is not on the counts scale."""

    matrix: Any
    scale: str = "lognorm"


@dataclass(frozen=True)
class Context:
    """What a method may be told beyond the counts; only those that say so in the table use labels or truth."""

    task: str
    data: Data
    set: Set
    seed: int
    rates_of_truth: Any = None


@dataclass(frozen=True)
class Method:
    """A method, or several results of one fit."""

    key: str
    kind: str
    labels: dict[str, str]
    """Key of each result -> its name in tables and figures."""
    run: Callable[[Any, Context], Any]
    """(counts, context) -> rates, or :class:`Values`, or a dict of these by the keys of ``labels``."""
    version: Callable[[], str]
    tasks: tuple[str, ...] = TASKS
    seconds: float = 5.0
    """Rough cost of a fit to 1,500 cells x 2,000 genes on one core, for the estimate before there are results."""
    deterministic: bool = False
    """Whether another seed gives the same result for the same counts."""
    only: tuple[str, ...] | None = None
    """Sets that it is run on, where it is not all."""
    needs: str | None = None
    """``"labels"`` or ``"truth"``: run only on sets that have them."""

    def suits(self, task: str, each: Set, data: Data) -> bool:
        """Whether the method is run on a set in a task."""
        if task not in self.tasks or (self.only is not None and each.name not in self.only):
            return False
        return self.needs is None or getattr(data, self.needs) is not None


# --- versions ------------------------------------------------------------------------------------------------------


@cache
def source_version(*patterns: str) -> str:
    """Digest of the package's code in some files; comments, docstrings and layout do not count."""
    root = Path(scgacl_scvi.__file__).parent
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [line for line in body if not _is_text(line)] or [ast.Pass()]
        digest.update(f"{path.relative_to(root)}\0{ast.unparse(tree)}\0".encode())
    return f"{scgacl_scvi.__version__}+{digest.hexdigest()[:8]}"


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def our_version() -> str:
    """Version of the model: any change of its code makes it another method."""
    return source_version("model/*.py", "module/*.py", "train/*.py", "dropout/*.py", "_compat.py")


def _scvi_version() -> str:
    return importlib.metadata.version("scvi-tools")


@cache
def _peer_version(name: str, distribution: str) -> str:
    python = os.environ.get(f"SCGACL_PEER_{name.upper()}")
    if not python:
        return UNAVAILABLE
    ask = f"from importlib.metadata import version; print(version({distribution!r}))"
    try:
        answer = subprocess.run([python, "-I", "-c", ask], capture_output=True, text=True, timeout=120)
    except OSError:
        return UNAVAILABLE
    return answer.stdout.strip() if answer.returncode == 0 else UNAVAILABLE


# --- what they do --------------------------------------------------------------------------------------------------


def _baseline(name: str, **arguments: Any) -> Callable[[Any, Context], Any]:
    return partial(_run_baseline, name=name, arguments=arguments)


def _run_baseline(counts: Any, context: Context, *, name: str, arguments: dict) -> Any:
    from scgacl_scvi.evaluate import baselines

    return getattr(baselines, name)(counts, **arguments, **({} if name in _UNSEEDED else {"seed": context.seed}))


_UNSEEDED = {"no_imputation", "gene_mean", "all_zeros"}


def _controls(counts: Any, context: Context) -> dict[str, Any]:
    from scgacl_scvi.evaluate import baselines

    return {"none": counts, "gene_mean": baselines.gene_mean(counts)}


def _gene_mean_impute(counts: Any, context: Context) -> Values:
    from scgacl_scvi.evaluate import baselines

    return Values(baselines.gene_mean_impute(counts))


def _type_mean(counts: Any, context: Context) -> Values:
    from scgacl_scvi.evaluate import baselines

    return Values(baselines.type_mean(counts, context.data.labels))


def _truth(counts: Any, context: Context) -> Any:
    return context.data.truth if context.task == RECOVERY else context.rates_of_truth


def _scvi_nb(counts: Any, context: Context) -> dict[str, Any]:
    from scgacl_scvi.evaluate import baselines

    return dict(zip(("scvi_nb", "scvi_nb_posterior"), baselines.scvi_nb_both(counts, seed=context.seed), strict=True))


def fit_ours(counts: Any, seed: int, labels: np.ndarray | None = None, settings: dict | None = None) -> Any:
    """Our model, trained on counts, and on labels where given."""
    import anndata
    import scvi

    from scgacl_scvi import SCGACL

    scvi.settings.seed = seed
    adata = anndata.AnnData(counts.astype(np.float32))
    if labels is not None:
        adata.obs["label"] = labels
    SCGACL.setup_anndata(adata, labels_key=None if labels is None else "label")
    model = SCGACL(adata, **(settings or {}))
    model.train(enable_progress_bar=False)
    return model


def _ours(counts: Any, context: Context, *, labels: bool = False, settings: dict | None = None) -> Any:
    settings = dict(settings or {})
    if settings.get("preset") == "paper" and not labels:
        settings["n_clusters"] = context.set.n_clusters
    model = fit_ours(counts, context.seed, context.data.labels if labels else None, settings)
    get = partial(model.get_imputed_expression, return_numpy=True, layer_key=None)
    if context.task == HELDOUT:
        rates = get(policy="denoise", scale="counts")
        if settings or model.module.gene_likelihood != "nb":
            return rates
        depth = (1 - FRACTION) / FRACTION  # of the held-out counts, whose normalised log is to be predicted
        of_logs = get(policy="denoise", scale="log1p_cp10k", estimand="log", depth=depth)
        return {"ours": rates, "ours_log": Values(of_logs, "log1p_cp10k")}
    if context.task == RECOVERY:
        return Values(get(policy=context.set.policy))
    sample = model.posterior_predictive_sample(n_samples=1)
    denoised = {"ours": Values(get(policy="denoise"))}
    impute = {} if context.task == STRUCTURE else {"ours_impute": Values(get(policy="impute"))}
    sampled = np.asarray(sample.todense() if hasattr(sample, "todense") else sample).reshape(counts.shape)
    return denoised | impute | {"ours_sample": sampled}


# --- the list ------------------------------------------------------------------------------------------------------


def _method(key: str, kind: str, label: str, run: Callable, version: Callable[[], str], **rest: Any) -> Method:
    return Method(key, kind, {key: label, **rest.pop("more", {})}, run, version, **rest)


_file = partial(partial, source_version)
_all_but_heldout = (RECOVERY, NULL, STRUCTURE)

METHODS = {
    each.key: each
    for each in (
        _method(
            *("none", CONTROL, "no denoising", _controls, _file("evaluate/baselines/_controls.py")),
            more={"gene_mean": "gene mean", "all_zeros": "all zeros", "leak": "held-out counts (a leak)"},
            seconds=1,
            deterministic=True,
        ),
        _method(
            *("gene_mean_nonzero", CONTROL, "gene mean of non-zeros", _gene_mean_impute),
            _file("evaluate/baselines/_controls.py"),
            tasks=(RECOVERY,),
            seconds=1,
            deterministic=True,
        ),
        _method(
            *("type_mean", CONTROL, "type mean of non-zeros (labels)", _type_mean),
            _file("evaluate/baselines/_controls.py"),
            tasks=(RECOVERY,),
            seconds=1,
            deterministic=True,
            needs="labels",
        ),
        _method(
            *("truth", CHECK, "the truth", _truth, lambda: "1"),
            tasks=(RECOVERY, HELDOUT),
            seconds=1,
            deterministic=True,
            needs="truth",
        ),
        _method(
            *("knn_smoothing", PEER, "kNN-smoothing", _baseline("knn_smoothing")),
            _file("evaluate/baselines/_knn_smoothing.py"),
        ),
        _method(*("alra", PEER, "ALRA", _baseline("alra"), _file("evaluate/baselines/_alra.py"))),
        _method(*("magic", PEER, "MAGIC", _baseline("magic"), partial(_peer_version, "magic", "magic-impute"))),
        _method(
            *("magic_reversed", PEER, "MAGIC, reversed", _baseline("magic", reversed_normalisation=True)),
            partial(_peer_version, "magic", "magic-impute"),
        ),
        _method(
            *("cellmapper", PEER, "CellMapper", _baseline("cellmapper")),
            partial(_peer_version, "cellmapper", "cellmapper"),
            seconds=15,
        ),
        _method(*("dca", PEER, "DCA", _baseline("dca"), partial(_peer_version, "dca", "dca")), seconds=60),
        _method(
            *("scvi_nb", PEER, "scVI, NB, early stopping", _scvi_nb, _scvi_version),
            more={"scvi_nb_posterior": "scVI, NB + posterior mean"},
            seconds=90,
        ),
        _method("scvi", PEER, "scVI, defaults", _baseline("scvi_defaults"), _scvi_version, seconds=120),
        _method(
            *("ours", OURS, "scgacl-scvi", _ours, our_version),
            more={
                "ours_impute": "scgacl-scvi, impute",
                "ours_sample": "scgacl-scvi, posterior sample",
                "ours_log": "scgacl-scvi, estimand log",
            },
            seconds=45,
        ),
        _method(
            *("ours_labels", OURS, "scgacl-scvi (labels)", partial(_ours, labels=True), our_version),
            tasks=(RECOVERY,),
            seconds=45,
            needs="labels",
        ),
        _method(
            *("paper", OURS, 'preset="paper"', partial(_ours, settings={"preset": "paper"}), our_version),
            tasks=(RECOVERY, HELDOUT),
            seconds=600,
            only=("sim_scgacl_groups3", "sim_autoclass_dataset1", "baron_downsampled_ref", "pbmc3k", "paul15"),
        ),
        _method(
            *("paper_labels", OURS, 'preset="paper" (labels)'),
            partial(_ours, labels=True, settings={"preset": "paper"}),
            our_version,
            tasks=(RECOVERY,),
            seconds=300,
            needs="labels",
        ),
    )
}

LABELS = {key: label for method in METHODS.values() for key, label in method.labels.items()}
KIND_OF = {key: method.kind for method in METHODS.values() for key in method.labels}
