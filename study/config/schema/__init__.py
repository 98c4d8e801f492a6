"""What a study file and a search space may say, for editors and for people.

Both come from the models that the loader validates with, so that they cannot drift from it:
`study_schema` and `space_schema` give JSON Schemas (draft 7), `reference` the tables of
README.md. The files beside this module are written by ``python -m study.config.schema``.
"""

from __future__ import annotations

from pathlib import Path

from study.config.schema.reference import reference
from study.config.schema.search_space import space_schema
from study.config.schema.study_file import study_schema

__all__ = ["SPACE_FILE", "STUDY_FILE", "reference", "space_schema", "study_schema"]

STUDY_FILE = Path(__file__).parent / "study.schema.json"
SPACE_FILE = Path(__file__).parent / "search-space.schema.json"
