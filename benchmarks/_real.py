"""The command line of benchmarks of our model on a few real sets."""

import argparse
import importlib.metadata
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from _accuracy.sets import Data, prepare


def main(
    description: str,
    sets: Sequence[str],
    packages: Sequence[str],
    measure: Callable[[Data, Path, int], Iterable[dict[str, Any]]],
) -> None:
    """Print versions, and what is measured on each set (its data and file) and seed; numbers with three decimals."""
    import torch

    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SCGACL_DATA"))
    parser.add_argument("--sets", nargs="+", choices=list(sets), default=list(sets))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("no folder of data; pass --data FOLDER or set SCGACL_DATA")
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print({name: importlib.metadata.version(name) for name in ("scgacl-scvi", "scvi-tools", "torch", *packages)})
    for name in arguments.sets:
        for seed in arguments.seeds:
            data = prepare(name, Path(arguments.data), seed)
            torch.set_num_threads(1)  # the choice of genes sets it to all
            for row in measure(data, Path(arguments.data) / f"{name}.h5ad", seed):
                rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
                print({"set": name, "seed": seed, **rounded}, flush=True)
