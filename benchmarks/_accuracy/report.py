"""Tables and figures into the documentation, between markers; the words around them are written by hand."""

import re
from pathlib import Path

from . import figures, store, tables

SECTIONS = {
    "setting": tables.setting,
    "ranks": tables.ranks,
    "heldout": tables.heldout,
    "as-coded": tables.as_coded,
    "of-logs": tables.of_logs,
    "recovery": tables.recovery,
    "truth-last": tables.truth_last,
    "null": tables.null,
    "structure": tables.structure,
    "cost": tables.cost,
    "failures": tables.failures,
}


def write_report(results: Path, docs: Path, *, quick: bool) -> None:
    """Fill the page of the documentation, or for a quick run write one beside its results."""
    table = store.current(store.read(results))
    if table.empty:
        raise SystemExit(f"{results}: no results yet; run the benchmark first")
    sections = {name: make(table) for name, make in SECTIONS.items()}
    if quick:
        page, drawn = results.with_suffix(".md"), results.parent / "quick"
        page.write_text("\n\n".join(f"## {name}\n\n{text}" for name, text in sections.items()) + "\n")
    else:
        page, drawn = docs / "benchmarks.md", docs / "_static" / "benchmarks"
        page.write_text(fill(page.read_text(encoding="utf-8"), sections), encoding="utf-8")
    print(f"Tables: {page}. Figures: {', '.join(str(path) for path in figures.write(table, drawn))}")


def fill(text: str, sections: dict[str, str]) -> str:
    """Replace what stands between ``<!-- table: name -->`` and ``<!-- end -->``."""
    for name, content in sections.items():
        start, end = f"<!-- table: {name} -->", "<!-- end -->"
        pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"docs/benchmarks.md: no line {start!r} with {end!r} after it; put them where it belongs")
        text = pattern.sub(lambda _: f"{start}\n{content}\n{end}", text, count=1)  # noqa: B023
    return text
