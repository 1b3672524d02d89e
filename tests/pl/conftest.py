import matplotlib
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def quiet_matplotlib(monkeypatch):
    """Figures are closed after each test; showing one or changing the global style fails it."""

    def show(*args, **kwargs):
        raise AssertionError("a figure function called plt.show")

    monkeypatch.setattr(plt, "show", show)
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before
    plt.close("all")


@pytest.fixture
def drawn(tmp_path):
    """Render the figure of an Axes and return how many colours its image has."""

    def render(ax):
        path = tmp_path / "figure.png"
        ax.figure.savefig(path, dpi=50)
        image = plt.imread(path)
        return len({tuple(pixel) for pixel in image.reshape(-1, image.shape[-1]).tolist()})

    return render
