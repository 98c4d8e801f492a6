"""`study export`: every trial, or every evaluation, as one file for other tools."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import typer

from study.cli.files import results_named
from study.cli.output import write_data, written_to
from study.errors import UserError
from study.remote import RemoteFolder, is_remote
from study.table import What, rows_of, to_csv, to_parquet
from study.text_files import write_bytes
from study.text_format import byte_size

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
    with written_to(output):
        write_bytes(Path(output), content)
