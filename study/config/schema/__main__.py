"""Writes the schemas and the reference's tables anew: ``python -m study.config.schema``."""

from __future__ import annotations

import json
from pathlib import Path

from study.config.schema import SPACE_FILE, STUDY_FILE, reference, space_schema, study_schema

BEGIN, END = "<!-- reference:begin -->", "<!-- reference:end -->"


def with_reference(page: str) -> str:
    """`page` with the tables between its two markers."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    for path, schema in ((STUDY_FILE, study_schema()), (SPACE_FILE, space_schema())):
        path.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    readme = Path(__file__).parent / "README.md"
    readme.write_text(with_reference(readme.read_text(encoding="utf-8")), encoding="utf-8")
