import subprocess
import sys
import time

import numpy as np
import pytest

from scgacl_scvi.evaluate import measured

ALLOCATE = "import time; block = bytearray(b'x' * 60_000_000); time.sleep(0.5)"
BURN = "import time\nwhile time.process_time() < 0.4: pass"


def run(code):
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_result_and_the_arguments_pass_through():
    assert measured(divmod, 7, 3)[0] == (2, 1)


def test_time_on_the_wall_and_on_the_processor_differ():
    _, asleep = measured(time.sleep, 0.3)
    assert 0.3 <= asleep.seconds < 3
    assert asleep.cpu_seconds < 0.2

    def burn():
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass

    _, busy = measured(burn)
    assert 0.25 <= busy.cpu_seconds < 3


@pytest.mark.parametrize("hold", [0.0, 0.1])
def test_the_peak_is_seen_though_it_is_gone_at_the_end(hold):
    def peak():
        block = np.ones(10_000_000)  # 80 MB
        time.sleep(hold)
        return block.sum()

    _, usage = measured(peak)
    assert 60e6 < usage.peak_bytes < 200e6


def test_a_call_that_takes_no_memory_is_not_charged_with_what_was_there():
    ballast = np.ones(10_000_000)
    _, usage = measured(time.sleep, 0.05)
    assert usage.peak_bytes < 20e6
    assert ballast[0] == 1


def test_processes_that_the_call_starts_count():
    _, memory = measured(run, ALLOCATE)
    assert 50e6 < memory.peak_bytes < 300e6
    _, time_of_child = measured(run, BURN)
    assert 0.3 < time_of_child.cpu_seconds < 5


def test_an_error_passes_through_and_the_watching_thread_ends():
    import threading

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        measured(divmod, 1, 0)
    assert threading.active_count() == before
