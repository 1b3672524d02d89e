"""An error is one line that says what to do."""

import functools
import re
from collections.abc import Callable
from pathlib import Path

import typer

_PACKAGE = str(Path(__file__).parents[1])
_OPTIONS = (
    "accelerator|batch_key|csv|fractional|genes|input_scale|labels|labels_key|layer|max_epochs|min_cells|n_clusters|"
    "n_top_genes|policy|preset|scale|seed|stratify_by"
)


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn exceptions of a command into one line on the standard error stream and exit code 1.

    What this package raises on purpose is shown as it is; for anything else the line says how to see more. With
    ``debug=True``, which is taken away from the arguments, exceptions pass.
    """

    @functools.wraps(command)
    def wrapped(*args, debug: bool = False, **kwargs) -> None:
        if debug:
            command(*args, **kwargs)
            return
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:  # noqa: BLE001 - the last resort of a command
            typer.secho("Error: ", err=True, fg="red", bold=True, nl=False)
            typer.echo(one_line(error), err=True)
            raise typer.Exit(1) from None

    return wrapped


def one_line(error: Exception) -> str:
    """Give the message in one line, with options as they are written in a shell."""
    # The message of a KeyError is quoted by str().
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    message = " ".join(message.split())
    if _is_ours(error) or isinstance(error, FileNotFoundError | PermissionError):
        return as_options(message)
    return f"{type(error).__name__}: {message or 'no message'} (add --debug to see where it comes from)"


def as_options(message: str) -> str:
    """Spell arguments of the Python interface as options: ```layer='counts'``` -> ```--layer counts```."""

    def option(match: re.Match) -> str:
        value = match["value"]
        return f"`--{match['name'].replace('_', '-')}{f' {value}' if value is not None else ''}`"

    message = re.sub(r"`setup_anndata\((\w+=[^)]*)\)`", r"`\1`", message)
    return re.sub(rf"`(?P<name>{_OPTIONS})(?:=(?P<q>['\"]?)(?P<value>[^`]*?)(?P=q))?`", option, message)


def _is_ours(error: Exception) -> bool:
    """Whether the error was raised by this package's own code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE)
