import doctest
import importlib
import subprocess
import sys

import pytest

from scgacl_scvi import evaluate, pl
from scgacl_scvi.evaluate import baselines


def test_importing_the_rooms_stays_light():
    code = (
        "import sys, scgacl_scvi.evaluate, scgacl_scvi.pl\n"
        "heavy = {'numpy', 'pandas', 'scipy', 'sklearn', 'matplotlib', 'torch', 'scvi'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from scgacl_scvi.evaluate import baselines, recovery\n"
        "from scgacl_scvi.evaluate.baselines import gene_mean\n"
        "heavy = {'sklearn', 'matplotlib', 'torch', 'scvi'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", [evaluate, baselines, pl])
def test_every_exported_name_can_be_imported_and_is_documented(package):
    assert dir(package) == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = package.nonsense


@pytest.mark.parametrize(
    "name",
    [
        *("_accounting", "_clustering", "_heldout", "_leak", "_molecular_cv", "_null_correlation", "_recovery"),
        *("_difference", "_scale", "_variance", "baselines._alra", "baselines._controls", "baselines._knn_smoothing"),
        "baselines._scvi",
    ],
)
def test_the_examples_of_the_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(f"scgacl_scvi.evaluate.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
