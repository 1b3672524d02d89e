import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scgacl_scvi import pl


@pytest.fixture
def coordinates():
    rng = np.random.default_rng(0)
    return rng.normal(size=(120, 2)), rng.normal(size=(120, 2))


def legend(axes):
    return [text.get_text() for text in axes[1].get_legend().get_texts()]


def test_both_panels_share_one_legend(coordinates, drawn):
    axes = pl.embedding_before_after(*coordinates, ["B", "T", "NK"] * 40, ("scVI", "scGACL"))
    assert [ax.get_title() for ax in axes] == ["scVI", "scGACL"]
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes] == [("UMAP 1", "UMAP 2")] * 2
    assert axes[0].get_legend() is None
    assert legend(axes) == ["B", "NK", "T"]
    for ax, expected in zip(axes, coordinates, strict=True):
        shown = np.vstack([c.get_offsets() for c in ax.collections])
        np.testing.assert_allclose(np.sort(shown, axis=0), np.sort(expected, axis=0))
    assert drawn(axes[0]) > 50


def test_forty_labels_look_all_different(coordinates):
    axes = pl.embedding_before_after(*coordinates, np.arange(120) % 40)
    looks = {(tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in axes[0].collections}
    assert len(looks) == 40
    assert legend(axes) == [str(i) for i in range(40)]  # 2 before 10


def test_categories_keep_their_order_and_missing_labels_are_grey(coordinates):
    labels = pd.Categorical(["late", "early", None] * 40, categories=["early", "never", "late"])
    axes = pl.embedding_before_after(*coordinates, labels)
    assert legend(axes) == ["early", "late", "no label"]


def test_given_axes_are_used(coordinates):
    _, axes = plt.subplots(1, 2)
    assert list(pl.embedding_before_after(*coordinates, ["B"] * 120, ax=axes)) == list(axes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"before": np.zeros(120)}, "before: expected cells x 2 coordinates"),
        ({"after": np.zeros((5, 2))}, "after: 5 cells, but before has 120; pass the same cells"),
        ({"after": np.full((120, 2), np.nan)}, "after: holds NaN"),
        ({"labels": ["B"]}, "labels: 1 labels for 120 cells; pass one"),
        ({"titles": ("one",)}, "titles: got 1; pass two"),
    ],
)
def test_bad_input_is_named_with_a_remedy(coordinates, change, message):
    arguments = {"before": coordinates[0], "after": coordinates[1], "labels": ["B"] * 120} | change
    with pytest.raises(ValueError, match=message):
        pl.embedding_before_after(**arguments)
