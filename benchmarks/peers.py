"""Environments of the peers that cannot share ours: MAGIC, DCA, CellMapper.

    python benchmarks/peers.py install [magic dca cellmapper] [--folder .peers] [--python PYTHON]
    python benchmarks/peers.py check [magic dca cellmapper] [--folder .peers]

`install` makes one virtual environment for each, from pinned versions that are known to work, and checks it. `check`
runs each on a tiny matrix and prints its version or the reason why not, and the `export` lines that the benchmarks
read. Interpreters come from the variables SCGACL_PEER_..., else from the folder. The exit status is 1 if one fails.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from scgacl_scvi.evaluate.baselines._external import PEERS, Peer, PeerUnavailable, run_peer


def base_interpreter(peer: Peer, python: str | None) -> str:
    found = shutil.which(python or f"python{peer.python}")
    if found is None:
        wanted = python or f"python{peer.python} (not on PATH)"
        raise SystemExit(
            f"{peer.name}: needs Python {peer.python}, found no {wanted}; name one with --python and one tool at a time"
        )
    version = subprocess.run(
        [found, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], check=True, capture_output=True, text=True
    ).stdout.strip()
    if version != peer.python:
        raise SystemExit(f"{peer.name}: needs Python {peer.python}, {found} is {version}; name another with --python")
    return found


def install(peer: Peer, folder: Path, python: str | None) -> None:
    home = folder / peer.name
    steps = (
        [base_interpreter(peer, python), "-m", "venv", "--clear", home],
        [home / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", peer.requirements],
    )
    for step in steps:
        print("+", *step, flush=True)
        if subprocess.run(step).returncode:
            raise SystemExit(f"{peer.name}: this step failed, see above; the other tools can still be named")


def check(peer: Peer, folder: Path) -> bool:
    python = os.environ.get(peer.variable) or folder.resolve() / peer.name / "bin" / "python"
    counts = np.random.default_rng(0).poisson(np.random.default_rng(1).gamma(1.0, 1.0, 30), (80, 30))
    try:
        result = run_peer(peer.name, counts, python=python, seed=0)
    except PeerUnavailable as error:
        print(f"# not there: {error}".replace("\n", "\n# "))
    except RuntimeError as error:
        print(f"# does not work: {error}".replace("\n", "\n# "))
    else:
        memory = "" if result.peak_bytes is None else f", {result.peak_bytes / 1e6:.0f} MB"
        print(f"# {peer.name} {result.version} works ({result.seconds:.2f} s{memory} on 80 cells x 30 genes)")
        print(f"export {peer.variable}={python}", flush=True)
        return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["install", "check"])
    parser.add_argument("tools", nargs="*", metavar="tool", help=f"of {', '.join(PEERS)}; all if none is given")
    parser.add_argument("--folder", type=Path, default=Path(".peers"))
    parser.add_argument("--python", help="interpreter to make the environment from, else pythonX.Y on PATH")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.tools) - set(PEERS))
    if unknown:
        parser.error(f"no such tool: {unknown}; choose from {list(PEERS)}")
    if arguments.python and len(arguments.tools) != 1:
        parser.error("--python: name the one tool it is for; each needs another version")
    chosen = [PEERS[name] for name in arguments.tools or PEERS]
    if arguments.command == "install":
        for peer in chosen:
            install(peer, arguments.folder, arguments.python)
    working = [check(peer, arguments.folder) for peer in chosen]
    return 0 if all(working) else 1


if __name__ == "__main__":
    sys.exit(main())
