import ast
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from scgacl_scvi.evaluate.baselines import _external
from scgacl_scvi.evaluate.baselines._external import PEERS, PeerUnavailable, cellmapper, dca, magic, run_peer

tools = {"magic": magic, "dca": dca, "cellmapper": cellmapper}


@pytest.fixture
def counts():
    x = np.random.default_rng(0).poisson(2.0, (20, 8))
    x[3] = 0
    x[:, 5] = 0
    return x


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Replace the adapters by a script of the test's own, run by this interpreter through the real child."""
    (tmp_path / "_child.py").write_text((_external.ADAPTERS / "_child.py").read_text())
    monkeypatch.setattr(_external, "ADAPTERS", tmp_path)
    for peer in PEERS.values():
        monkeypatch.setenv(peer.variable, sys.executable)

    def write(body, name="dca", imports="import numpy as np"):
        (tmp_path / f"{name}.py").write_text(
            f"{imports}\nVERSION = '1.2'\ndef denoise(counts, seed, **options):\n    {body}\n"
        )

    return write


def test_counts_reach_the_tool_and_rates_come_back_in_place(counts, fake):
    fake("return counts.toarray() * 2.5 + seed")
    kept = np.outer(counts.sum(1) > 0, counts.sum(0) > 0)
    for x in (counts, sparse.csr_matrix(counts), sparse.csc_array(counts.astype(np.float64))):
        result = run_peer("dca", x, seed=3)
        assert result.rates.dtype == np.float32
        np.testing.assert_array_equal(result.rates, np.where(kept, counts * 2.5 + 3, 0))
    np.testing.assert_array_equal(dca(counts, seed=3), result.rates)


def test_empty_cells_and_genes_never_reach_the_tool(counts, fake):
    fake("assert (counts.sum(0) > 0).all() and (counts.sum(1) > 0).all(); return counts.toarray()")
    np.testing.assert_array_equal(dca(counts, seed=0), counts)


def test_options_and_the_resolved_seed_reach_the_tool(counts, fake, monkeypatch):
    import scvi

    monkeypatch.setattr(scvi.settings, "_seed", 7)
    fake("return counts.toarray() * 0 + seed + 100 * options['reversed_normalisation']", name="magic")
    assert magic(counts).max() == 7
    assert magic(counts, reversed_normalisation=True).max() == 107
    assert run_peer("magic", counts, seed=1).rates.max() == 1


def test_version_time_and_memory_are_the_tools_own(counts, fake):
    ballast = np.ones(2**26)  # 512 MB here, which must not count there
    fake(
        "held = np.ones(2**24); return counts.toarray()",
        # A clock that starts after the import, with one tick before the work and one after it.
        imports="import time\nimport numpy as np\n"
        "time.perf_counter, time.process_time = iter([5.0, 7.5]).__next__, iter([1.0, 2.25]).__next__",
    )
    result = run_peer("dca", counts, seed=0)
    assert (result.version, result.seconds, result.cpu_seconds) == ("1.2", 2.5, 1.25)
    assert 2**27 < result.peak_bytes < ballast.nbytes


def test_the_tool_sees_a_clean_environment(counts, fake, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # where dca.py would hide the tool of that name
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    fake(
        "home = os.path.realpath(os.path.expanduser('~'))\n"
        "    clean = not {'PYTHONPATH', 'MPLBACKEND'} & set(os.environ) and home == os.path.realpath(os.getcwd())\n"
        f"    clean &= os.environ['OMP_NUM_THREADS'] == '1' and {str(tmp_path)!r} not in sys.path\n"
        "    return counts.toarray() * clean",
        imports="import os, sys",
    )
    np.testing.assert_array_equal(dca(counts, seed=0), counts)


@pytest.mark.parametrize("name", tools)
def test_without_an_interpreter_the_message_says_how_to_make_one(counts, name, monkeypatch):
    peer = PEERS[name]
    monkeypatch.delenv(peer.variable, raising=False)
    with pytest.raises(PeerUnavailable) as caught:
        tools[name](counts, seed=0)
    assert peer.variable in str(caught.value)
    for command in peer.commands():
        assert command in str(caught.value)
    requirements = peer.requirements.read_text().splitlines()
    assert all("==" in line for line in requirements if not line.startswith("#"))


def test_an_interpreter_that_is_not_there_or_cannot_run_is_named_with_its_source(counts, tmp_path, monkeypatch):
    absent = tmp_path / "python"
    with pytest.raises(PeerUnavailable, match=r"python names .* no program; make its environment"):
        magic(counts, python=absent, seed=0)
    monkeypatch.setenv("SCGACL_PEER_MAGIC", str(absent))
    with pytest.raises(PeerUnavailable, match="SCGACL_PEER_MAGIC names .* no program"):
        magic(counts, seed=0)
    absent.write_bytes(b"\x7fELF, but not really")
    absent.chmod(absent.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(PeerUnavailable, match="cannot be run .*; make its environment"):
        magic(counts, seed=0)


@pytest.mark.parametrize(
    ("imports", "reason"),
    [
        ("import no_such_tool", "ModuleNotFoundError: No module named 'no_such_tool'"),
        ("raise AttributeError('np.float is gone')", "AttributeError: np.float is gone"),
    ],
)
def test_a_tool_that_cannot_be_imported_is_unavailable_with_the_reason(counts, fake, imports, reason):
    fake("return counts.toarray()", imports=imports)
    with pytest.raises(PeerUnavailable, match="cannot import the tool") as caught:
        dca(counts, seed=0)
    assert reason in str(caught.value)
    assert PEERS["dca"].commands()[1] in str(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('line of the tool'); raise KeyError('lost')", "(?s)exit status 1.*line of the tool.*KeyError: 'lost'"),
        ("import os; os.kill(os.getpid(), 9)", r"killed by signal 9 \(out of memory\?\)"),
        ("import os; os._exit(0)", "crashed, exit status 0"),
        ("return counts.toarray()[1:]", r"rates of shape \(18, 7\) for counts of shape \(19, 7\)"),
        ("return counts.toarray() * np.nan", "returned NaN or infinite rates"),
        ("return -counts.toarray()", "returned negative rates, the lowest -"),
        ("return [['a']]", "(?s)crashed, exit status 1.*could not convert string to float"),
    ],
)
def test_crashes_and_bad_results_are_told_apart_and_explained(counts, fake, body, message):
    fake(body)
    with pytest.raises(RuntimeError, match=f"^dca: .*{message}" if "(?s)" not in message else message) as caught:
        dca(counts, seed=0)
    assert not isinstance(caught.value, PeerUnavailable)


def test_a_program_that_is_not_python_is_a_crash_with_its_last_lines(counts, tmp_path):
    shell = tmp_path / "python"
    shell.write_text("#!/bin/sh\necho 'I am no Python'\nexit 4\n")
    shell.chmod(0o755)
    with pytest.raises(RuntimeError, match="(?s)magic: crashed, exit status 4.*I am no Python"):
        magic(counts, python=shell, seed=0)


def test_bad_arguments_are_named_with_a_remedy(counts):
    with pytest.raises(ValueError, match="name: got 'saver'; choose from"):
        run_peer("saver", counts)
    with pytest.raises(ValueError, match=r"seed: got .* below 2\*\*32"):
        magic(counts, seed=2**32)
    with pytest.raises(ValueError, match="counts: holds negative values; pass counts"):
        magic(-counts, seed=0)
    with pytest.raises(ValueError, match="counts: all entries are zero"):
        magic(counts * 0, seed=0)


def test_adapters_run_on_old_pythons_and_are_part_of_the_package():
    names = {path.name for path in _external.ADAPTERS.iterdir() if path.is_file()}
    assert names == {"_child.py"} | {f"{name}.{ending}" for name in PEERS for ending in ("py", "txt")}
    for path in _external.ADAPTERS.glob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 8))
    assert Path(_external.__file__).parent in _external.ADAPTERS.parents


class FakeMagic:
    """The identity in the place of diffusion, so that what is left is the adapter's own arithmetic."""

    __version__ = "0"

    def __init__(self, **_):
        pass

    def MAGIC(self, **_):
        return self

    def fit_transform(self, x):
        return x


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_magics_normalisation_is_undone_exactly(seed, reversed_normalisation):
    import runpy

    x = np.random.default_rng(seed).poisson(1.5, (6, 5)) + np.eye(6, 5, dtype=int) + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "magic", FakeMagic())
        denoise = runpy.run_path(str(_external.ADAPTERS / "magic.py"))["denoise"]
    rates = denoise(sparse.csr_matrix(x.astype(np.float32)), seed, reversed_normalisation)
    np.testing.assert_allclose(rates, x, rtol=1e-6)


@pytest.mark.parametrize("name", tools)
def test_the_real_tool_returns_rates_near_the_cells_own_depth_and_repeats_itself(name, monkeypatch):
    if not os.environ.get(PEERS[name].variable):
        pytest.skip(f"{PEERS[name].variable} is not set; python benchmarks/peers.py install {name}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rng = np.random.default_rng(0)
    profile = rng.gamma(1.0, 4.0, (2, 40))
    truth = np.repeat(profile, 40, axis=0) * rng.lognormal(0, 0.5, (80, 1))
    counts = rng.poisson(truth)
    counts[:, counts.sum(0) == 0] = 1
    rates = tools[name](counts, seed=0)
    assert np.corrcoef(rates.sum(1), counts.sum(1))[0, 1] > 0.9
    assert 0.7 < rates.sum() / counts.sum() < 1.3
    assert ((np.sqrt(rates) - np.sqrt(truth)) ** 2).sum() < 0.7 * ((np.sqrt(counts) - np.sqrt(truth)) ** 2).sum()
    if name != "cellmapper":  # compiles for 10 s, and draws nothing but the start of its PCA
        np.testing.assert_array_equal(rates, tools[name](counts, seed=0))
