"""Runs in another tool's interpreter: counts from a folder, through that tool's adapter, rates back to the folder.

    python -I _child.py ADAPTER.py FOLDER

Never imported by the package. Must run on Python 3.8 with NumPy, SciPy and the tool alone, so no annotations and no
syntax newer than that.
"""

import json
import os
import runpy
import sys
import time


def peak_bytes():
    """Largest resident memory of this process so far, None where the system does not tell."""
    try:
        # Not getrusage: on Linux a child starts with its parent's peak there, because that survives fork and exec.
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(adapter, folder):
    def report(**entries):
        with open(os.path.join(folder, "report.json"), "w") as file:
            json.dump(entries, file)

    try:
        import numpy as np
        from scipy import sparse

        tool = runpy.run_path(adapter)
    except Exception as error:  # an old tool fails at its import in any way, and each means that it is not there
        report(missing=f"{type(error).__name__}: {error}")
        raise
    with open(os.path.join(folder, "settings.json")) as file:
        settings = json.load(file)
    counts = sparse.csr_matrix(sparse.load_npz(os.path.join(folder, "counts.npz")))
    start, cpu_start = time.perf_counter(), time.process_time()
    rates = tool["denoise"](counts, **settings)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    np.save(os.path.join(folder, "rates.npy"), np.asarray(rates, dtype=np.float32), allow_pickle=False)
    report(version=tool["VERSION"], seconds=seconds, cpu_seconds=cpu_seconds, peak_bytes=peak_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
