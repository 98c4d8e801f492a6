"""Lays out what a job takes along: this package as it runs here, and the study's own files."""

from __future__ import annotations

import shutil
import zipfile
from importlib.metadata import version
from pathlib import Path

from study.basics.shipped import package_folder, shipped_folder
from study.basics.text_files import write_text
from study.launch.submit.inputs import PackedStudy
from study.launch.submit.requirements import PACKAGE

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def stage_package(folder: Path) -> list[Path]:
    """Copy this package below `folder`, complete as a wheel has it, and its metadata.

    Returns:
        The folders ``study`` and its ``dist-info``, whose parents belong on Python's path.
    """
    here = package_folder()
    package = folder / "study"
    shutil.copytree(here, package, ignore=_NOT_COPIED)
    # An editable install has these outside of the package.
    for name in ("cluster", "search_spaces"):
        shutil.copytree(
            shipped_folder(name), package / name, ignore=_NOT_COPIED, dirs_exist_ok=True
        )
    metadata = folder / f"{PACKAGE.replace('-', '_')}-{version(PACKAGE)}.dist-info"
    write_text(
        metadata / "METADATA",
        f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version(PACKAGE)}\n",
    )
    return [package, metadata]


def zip_study(packed: PackedStudy, target: Path) -> None:
    """Write the job's working folder; the same study gives the same bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(_entry(packed.file_name), packed.text)
        for name, file in sorted(packed.inputs.items()):
            content = file if isinstance(file, bytes) else file.read_bytes()
            archive.writestr(_entry(name), content)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _ZIP_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
