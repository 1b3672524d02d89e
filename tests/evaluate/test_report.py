import base64
import re
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from scgacl_scvi.evaluate import Section, write_page
from scgacl_scvi.evaluate._table import format_column

VOID = {"meta", "img", "br", "link", "wbr"}


class Page(HTMLParser):
    """Collects tags and text, and checks that every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def figure():
    figure, ax = plt.subplots(figsize=(3, 2))
    ax.plot([0, 1], [1, 0])
    yield figure
    plt.close(figure)


@pytest.fixture
def sections(figure):
    table = pd.DataFrame({"rmse": [0.3869, -1.5], "n": [258903, 4]}, index=["ours", "none"])
    return [
        Section("Verdict", "Helps.\n\nOn all data."),
        Section("Recovery", table=table, figure=figure, caption="Bars are means."),
        Section("Table alone", table=table, caption="Numbers."),
        Section("Axes alone", figure=figure.axes[0]),
        Section("Array of Axes", figure=np.array(figure.axes)),
    ]


def write(path, sections, **kwargs):
    return write_page(path, title="Imputation", sections=sections, **kwargs).read_text(encoding="utf-8")


def test_the_page_asks_for_nothing_from_outside(tmp_path, sections):
    text = write(tmp_path / "page.html", sections, summary="Helps.")
    page = Page(text)
    targets = {attrs["href"] for attrs in page.all("a")}
    assert targets == {f"#s{i}" for i in range(1, 6)} == {f"#{attrs['id']}" for attrs in page.all("section")}
    assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in page.all("img"))
    assert not page.all("script")
    assert not page.all("link")
    assert not re.search(r"https?://|url\(|@import", text)
    assert "default-src 'none'" in text


def test_figures_are_images_of_the_stated_size_with_a_caption_and_a_text_for_the_blind(tmp_path, sections):
    page = Page(write(tmp_path / "page.html", sections))
    images = page.all("img")
    assert [image["alt"] for image in images] == ["Bars are means.", "Axes alone", "Array of Axes"]
    for image in images:
        png = base64.b64decode(image["src"].partition(",")[2])
        assert png.startswith(b"\x89PNG")
        assert 150 < int(image["width"]) < 350
    assert "Bars are means." in page.text


def test_text_is_escaped_wherever_it_comes_from(tmp_path):
    evil = '<script>alert("x")</script>&'
    table = pd.DataFrame({evil: [evil]}, index=pd.Index([evil], name=evil))
    section = Section(evil, evil, table=table, caption=evil)
    text = write_page(tmp_path / "p.html", title=evil, sections=[section] * 4, summary=evil).read_text()
    assert "<script" not in text
    assert "".join(Page(text).text).count(evil) == 2 + 1 + 4 * 7 + 4  # titles, summary, sections, contents


def test_it_reads_in_light_and_dark_and_on_a_phone(tmp_path, sections):
    text = write(tmp_path / "page.html", sections)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert "max-width: 100%" in text


def test_the_same_content_gives_the_same_bytes(tmp_path, sections):
    assert write(tmp_path / "a.html", sections) == write(tmp_path / "b.html", sections)


def test_a_failure_leaves_the_old_page_and_no_litter(tmp_path, sections, monkeypatch):
    path = tmp_path / "page.html"
    old = write(path, sections[:1])
    with pytest.raises(ValueError, match=r"sections\[1\] \('Bad'\): figure cannot be drawn; pass a matplotlib"):
        write(path, [sections[0], Section("Bad", figure="picture.png")])

    def full_disk(*args):
        raise OSError("no space left")

    monkeypatch.setattr("scgacl_scvi.evaluate._report.os.replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write(path, sections)
    assert path.read_text(encoding="utf-8") == old
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_page_is_replaced(tmp_path, sections):
    write(tmp_path / "page.html", sections[:1])
    assert "Table alone" in write(tmp_path / "page.html", sections)


def test_numbers_are_aligned_and_names_are_row_headers(tmp_path, sections):
    page = Page(write(tmp_path / "page.html", [sections[2]]))
    assert [attrs.get("class") for attrs in page.all("td")] == ["num"] * 4
    assert [attrs for attrs in page.all("th") if attrs["scope"] == "row"] == [{"scope": "row"}] * 2
    assert {"0.387", "−1.500", "258,903"} <= set(page.text)


def test_a_plain_index_is_not_shown(tmp_path):
    section = Section("T", table=pd.DataFrame({"method": ["ours"], "r": [0.5]}))
    page = Page(write(tmp_path / "p.html", [section]))
    assert len(page.all("th")) == 2
    kept = Section("T", table=pd.DataFrame({"r": [0.5, 0.4]}).iloc[::-1])
    assert len(Page(write(tmp_path / "p.html", [kept])).all("th")) == 4


def test_tables_with_several_levels_are_shown_in_full(tmp_path):
    table = pd.DataFrame(
        [[1.0, 2.0]],
        index=pd.MultiIndex.from_tuples([("pbmc", 0)], names=["data", "seed"]),
        columns=pd.MultiIndex.from_tuples([("ours", "r"), ("none", "r")]),
    )
    text = Page(write(tmp_path / "p.html", [Section("T", table=table)])).text
    assert {"data", "seed", "pbmc", "ours / r", "none / r"} <= set(text)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([0.97012, 0.5], ["0.970", "0.500"]),
        ([83.214, -5.0], ["83.21", "−5.00"]),
        ([725.06, 0.1], ["725.1", "0.1"]),
        ([0.0123, np.nan], ["0.0123", "–"]),
        ([-0.0001, 5.0], ["0.000", "5.000"]),
        ([1.5e12, 1.0], ["1.50e+12", "1.00e+00"]),
        ([0.0, 0.0], ["0", "0"]),
        ([np.inf, -np.inf], ["inf", "−inf"]),
        ([1234567, -2], ["1,234,567", "−2"]),
        ([True, False], ["yes", "no"]),
        (["a-b", None], ["a-b", "–"]),
        (pd.array([1, None], dtype="Int64"), ["1", "–"]),
        (pd.array([0.5, None], dtype="Float64"), ["0.500", "–"]),
    ],
)
def test_columns_are_rounded_for_reading(column, expected):
    assert format_column(pd.Series(column)) == expected


def test_bad_input_is_named_with_a_remedy(tmp_path):
    with pytest.raises(ValueError, match="path: the folder .* does not exist; create it first"):
        write(tmp_path / "no" / "page.html", [])
    with pytest.raises(ValueError, match="path: .* is a folder; give a file in it"):
        write(tmp_path, [])
    with pytest.raises(ValueError, match="table is a list; pass a pandas DataFrame"):
        write(tmp_path / "p.html", [Section("T", table=[1])])
    with pytest.raises(ValueError, match="sections: expected Section objects, got str"):
        write(tmp_path / "p.html", ["text"])
