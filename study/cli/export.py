"""`study export`: every trial, or every evaluation, as one file for other tools."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import typer

from study.analysis.table import What, rows_of, to_csv, to_parquet
from study.basics.errors import UserError
from study.basics.remote import RemoteFolder, is_remote
from study.basics.text_files import write_bytes
from study.basics.text_format import byte_size
from study.cli.files import results_named
from study.cli.output import write_data, written_to

_KINDS = (".parquet", ".csv")


def export_and_print(named: str, output: str | None, what: What) -> None:
    """Write the file and say so; without one, print CSV.

    Args:
        named: the STUDY argument.
        output: a file or its URL, ``.parquet`` or ``.csv``.

    Raises:
        UserError: there is no such study or nothing in it, or the file cannot be written.
    """
    kind = None if output is None else PurePosixPath(output).suffix.lower()
    if kind is not None and kind not in _KINDS:
        raise UserError(
            f"--output {output}: the name must end in {' or '.join(_KINDS)}, which says what is "
            "written."
        )
    results = results_named(named)
    rows = rows_of(results, what)
    if not rows:
        raise UserError(
            f"Study {results.config.name!r} has no {what} on record yet. Start it with `study run`."
        )
    if output is None:
        write_data(to_csv(rows))
        return
    content = to_parquet(rows) if kind == ".parquet" else to_csv(rows).encode()
    _write(output, content)
    typer.echo(f"Wrote {len(rows):,} {what} to {output} ({byte_size(len(content))})")


def _write(output: str, content: bytes) -> None:
    if is_remote(output):
        folder, _, name = output.rpartition("/")
        RemoteFolder(folder).write(name, content)
        return
    if os.path.lexists(output) and _columns(Path(output)) != _columns(content):
        raise UserError(
            f"--output {output}: something else is there than an earlier export. Give another name."
        )
    with written_to(output):
        write_bytes(Path(output), content)


def _columns(table: Path | bytes) -> list[str] | None:
    """The first columns of a table, which all of ours have; None: it is no table."""
    from pyarrow import ArrowException, BufferReader
    from pyarrow.parquet import read_schema

    try:
        content = table if isinstance(table, bytes) else table.read_bytes()
        if content.startswith(b"PAR1"):
            names = read_schema(BufferReader(content)).names
        else:
            names = content.split(b"\n", 1)[0].decode().split(",")
        return list(names)[:3]
    except (OSError, ValueError, ArrowException):
        return None
