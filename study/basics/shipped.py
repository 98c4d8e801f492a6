"""Where this package lies, and the folders that it ships."""

from __future__ import annotations

from pathlib import Path


def package_folder() -> Path:
    """``study/``."""
    return Path(__file__).absolute().parents[1]


def shipped_folder(name: str) -> Path:
    """``cluster/`` or ``search_spaces/``: inside an installed package, beside it in a checkout."""
    package = package_folder()
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def checkout() -> Path | None:
    """The checkout that this program runs from; None in an installed package."""
    folder = package_folder().parent
    return folder if (folder / "pyproject.toml").is_file() else None
