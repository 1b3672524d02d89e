"""Time and memory of a call, the same for every method."""

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, TypeVar

Result = TypeVar("Result")

INTERVAL = 0.01
"""Seconds between two readings of the memory."""

CHILDREN_EVERY = 20
"""Readings between two looks for new child processes: that means walking through all processes of the machine."""


@dataclass(frozen=True)
class Usage:
    """What a call took, processes that it started included."""

    seconds: float
    """Time on the wall."""
    cpu_seconds: float
    """Time of all threads on the processors; of child processes, those that have ended (not on Windows)."""
    peak_bytes: int
    """Highest resident memory during the call, above that at its start."""


def measured(function: Callable[..., Result], *args: Any) -> tuple[Result, Usage]:
    """Call a function and say what it took.

    Resident memory is read a hundred times a second by a thread of its own, and the system's own record is used where
    the call breaks it. Memory that a process shares with its child counts in both. What a function imports counts,
    too: for figures that compare, give each method a fresh process.

    Parameters
    ----------
    function
        What to call.
    *args
        Its arguments.

    Returns
    -------
    result, usage
        What the function returned, and seconds, CPU seconds and bytes.

    Raises
    ------
    Exception
        Whatever ``function`` raises.

    Examples
    --------
    >>> from scgacl_scvi.evaluate import measured
    >>> total, usage = measured(sum, [1, 2, 3])
    >>> total, usage.seconds < 60
    (6, True)
    """
    with _MemoryWatch() as memory:
        cpu, wall = _cpu_seconds(), perf_counter()
        result = function(*args)
        seconds, cpu_seconds = perf_counter() - wall, _cpu_seconds() - cpu
    return result, Usage(seconds, cpu_seconds, memory.peak - memory.start)


def _cpu_seconds() -> float:
    import psutil

    times = psutil.Process().cpu_times()
    return process_time() + times.children_user + times.children_system


def _reset_record() -> None:
    """Let Linux record the largest resident memory anew: an earlier peak of the process would hide a later one."""
    with suppress(OSError):  # another system, or not allowed
        Path("/proc/self/clear_refs").write_text("5")


def _record() -> int:
    """The largest resident memory of this process on record, or 0 where the system keeps none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _MemoryWatch:
    """Reads the resident memory of this process and of its children until the block ends."""

    def __enter__(self) -> "_MemoryWatch":
        import psutil

        self._process, self._gone = psutil.Process(), psutil.Error
        self._children: list = []
        _reset_record()
        self.start = self.peak = self._process.memory_info().rss
        self._record = _record()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self._read()
        record = _record()
        if record > self._record:  # reached during the call, perhaps between two readings
            self.peak = max(self.peak, record)

    def _watch(self) -> None:
        turn = 0
        while not self._done.wait(INTERVAL):
            if turn % CHILDREN_EVERY == 0:
                self._children = self._process.children(recursive=True)
            self._read()
            turn += 1

    def _read(self) -> None:
        total = self._process.memory_info().rss
        for child in self._children:
            try:
                total += child.memory_info().rss
            except self._gone:  # ended since the last look
                continue
        self.peak = max(self.peak, total)
