"""Nothing heavy is imported before it is needed. By module, since the time depends on the machine."""

import subprocess
import sys

import pytest

HEAVY = {"anndata", "h5py", "lightning", "matplotlib", "numpy", "pandas", "scanpy", "scipy", "scvi", "sklearn", "torch"}

LINES = {
    "import scgacl_scvi": "import scgacl_scvi",
    "its names": "import scgacl_scvi; dir(scgacl_scvi); scgacl_scvi.__version__",
    "scgacl --help": "from scgacl_scvi.cli import app; app(['--help'], standalone_mode=False)",
    "scgacl impute --help": "from scgacl_scvi.cli import app; app(['impute', '--help'], standalone_mode=False)",
}


@pytest.mark.parametrize("what", LINES)
def test_nothing_heavy_is_imported(what):
    line = f"{LINES[what]}\nimport sys\nprint('\\nLOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    loaded = done.stdout.rpartition("LOADED")[2].split()
    assert "scgacl_scvi" in loaded
    assert not HEAVY & set(loaded)
