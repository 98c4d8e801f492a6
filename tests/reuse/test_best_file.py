"""The one model of a best configuration's file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from study.basics.errors import ConfigError
from study.reuse import best_configuration
from study.reuse.best_file import Best, checked, read_form
from tests.helpers.best_files import written
from tests.helpers.results import make_results
from tests.reuse.best_content import best_content


def test_reading_gives_back_what_was_written_and_what_a_later_version_says_besides() -> None:
    best = best_configuration(make_results(), "lift", 128)
    content = yaml.safe_load(written(best))
    assert content == best.file.to_dict()
    later = content | {"remark": {"by": "hand"}}
    assert Best.read(later).to_dict() == later
    assert Best.read(best_content()).to_dict() == best_content()


def test_a_part_of_another_form_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    path.write_text(yaml.safe_dump(best_content(chosen={"trials": "one"}), sort_keys=False))
    with pytest.raises(ConfigError, match=r"chosen\.trials.*must be a list") as caught:
        checked(read_form(path))
    assert caught.value.faults[0].line
