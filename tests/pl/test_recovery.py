import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scgacl_scvi import pl


@pytest.fixture
def table():
    return pd.DataFrame(
        {"pearson_dropouts": [0.9, 0.5, np.nan], "rmse_dropouts": [0.4, 1.5, 3.0], "n_dropouts": [9, 9, 9]},
        index=["scGACL", "gene mean", "none"],
    )


def widths(ax):
    return [bar.get_width() for bar in ax.patches]


def values(ax):
    return [text.get_text() for text in ax.texts]


def test_each_metric_has_a_panel_that_says_which_way_is_better(table, drawn):
    axes = pl.recovery_bars(table)
    assert [ax.get_xlabel() for ax in axes] == [
        "Pearson r on dropouts\nhigher is better",
        "RMSE on dropouts (lognorm)\nlower is better",
    ]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == list(table.index)
    assert axes[0].yaxis_inverted()
    np.testing.assert_allclose(widths(axes[1]), [0.4, 1.5, 3.0])
    assert values(axes[1]) == ["0.400", "1.500", "3.000"]
    assert drawn(axes[0]) > 20


def test_a_missing_value_is_said_not_drawn_as_zero(table):
    assert values(pl.recovery_bars(table)[0]) == ["0.900", "0.500", "no value"]


def test_seeds_are_dots_around_their_mean():
    table = pd.DataFrame({"method": ["ours", "none"] * 3, "gain_nats": [0.1, -2, 0.2, -2, 0.3, -2.3]})
    (ax,) = pl.recovery_bars(table)
    np.testing.assert_allclose(widths(ax), [0.2, -2.1])
    assert values(ax) == ["0.200", "−2.100"]
    np.testing.assert_allclose(ax.collections[0].get_offsets()[:, 0], [0.1, 0.2, 0.3])


def test_only_the_highlighted_method_is_coloured(table):
    (ax,) = pl.recovery_bars(table, ["rmse_dropouts"], highlight="scGACL")
    colors = [bar.get_facecolor() for bar in ax.patches]
    assert colors[0] != colors[1] == colors[2]


def test_given_axes_are_used(table):
    _, given = plt.subplots()
    assert list(pl.recovery_bars(table, ["n_dropouts"], ax=given)) == [given]
    assert given.get_xlabel() == "n_dropouts"


def test_bad_input_is_named_with_a_remedy(table):
    with pytest.raises(ValueError, match="table: has no rows; pass one row per method"):
        pl.recovery_bars(table.iloc[:0])
    with pytest.raises(ValueError, match=r"metrics: \['ari'\] not in the table; choose from"):
        pl.recovery_bars(table, ["ari"])
    with pytest.raises(ValueError, match="metrics: none of .* name the columns"):
        pl.recovery_bars(table[["n_dropouts"]])
    with pytest.raises(ValueError, match=r"highlight: \['MAGIC'\] not among the methods; choose from"):
        pl.recovery_bars(table, highlight="MAGIC")
