"""A data frame as an HTML table for reading."""

import math
from html import escape

import pandas as pd
from pandas.api import types

MISSING = "\N{EN DASH}"


def table_html(table: pd.DataFrame, caption: str = "") -> str:
    """HTML table: numbers aligned on the right and rounded per column, text on the left, everything escaped."""
    if _index_matters(table):
        names = [name if name is not None else "" for name in table.index.names]
        n_row_headers = len(names)
        table = table.reset_index(names=[f"\0{i}" for i in range(n_row_headers)])
        titles = [*names, *table.columns[n_row_headers:]]
    else:
        n_row_headers, titles = 0, list(table.columns)
    columns = [table.iloc[:, j] for j in range(table.shape[1])]
    style = [' class="num"' if _is_number(column) else "" for column in columns]
    cells = [format_column(column) for column in columns]

    head = "".join(f'<th scope="col"{s}>{_title(t)}</th>' for t, s in zip(titles, style, strict=True))
    rows = []
    for i in range(len(table)):
        row = "".join(
            f'<th scope="row"{s}>{escape(c[i])}</th>' if j < n_row_headers else f"<td{s}>{escape(c[i])}</td>"
            for j, (c, s) in enumerate(zip(cells, style, strict=True))
        )
        rows.append(f"<tr>{row}</tr>")
    # Wide tables scroll inside their own box; tabindex lets the keyboard reach it.
    return (
        f'<div class="table" role="region" aria-label="{escape(caption or "Table")}" tabindex="0"><table>'
        + (f"<caption>{escape(caption)}</caption>" if caption else "")
        + f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def format_column(column: pd.Series) -> list[str]:
    """Texts of a column; the floats of one column share their number of decimals."""
    if types.is_bool_dtype(column.dtype):
        return [MISSING if pd.isna(v) else "yes" if v else "no" for v in column]
    if types.is_integer_dtype(column.dtype):
        return [MISSING if pd.isna(v) else _minus(f"{v:,}") for v in column]
    if types.is_float_dtype(column.dtype):
        values = [math.nan if pd.isna(v) else float(v) for v in column]
        spec = _float_spec(values)
        return [MISSING if math.isnan(v) else _minus(format(v, spec)) for v in values]
    return [MISSING if pd.api.types.is_scalar(v) and pd.isna(v) else str(v) for v in column]


def _float_spec(values: list[float]) -> str:
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    if largest == 0:
        return ",.0f"
    magnitude = math.floor(math.log10(largest))
    if not -4 <= magnitude < 9:
        return ".2e"
    # Four figures for the largest, but three decimals where it is .1 to 10: 0.970, 83.20, 725.1
    return f",.{max(0, 3 - max(magnitude, 0) if magnitude >= -1 else 2 - magnitude)}f"


def _minus(text: str) -> str:
    """Real minus sign, as wide as a digit; zero has none."""
    if text.startswith("-") and not any(c in text for c in "123456789") and "inf" not in text:
        return text[1:]
    return text.replace("-", "\N{MINUS SIGN}")


def _is_number(column: pd.Series) -> bool:
    return types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype)


def _index_matters(table: pd.DataFrame) -> bool:
    index = table.index
    return not (isinstance(index, pd.RangeIndex) and index.name is None and index.equals(pd.RangeIndex(len(table))))


def _title(name: object) -> str:
    title = " / ".join(str(part) for part in name) if isinstance(name, tuple) else str(name)
    return escape(title).replace("_", "_<wbr>")  # long column names may break, or few columns fit a page
