"""The package, the requirements and the variables that a job gets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import study
from study.basics.errors import UserError
from study.launch.submit.environment import check_keys, job_environment
from study.launch.submit.package import stage_package
from study.launch.submit.requirements import pinned_requirements

ROOT = Path(study.__file__).parents[1]


def test_the_package_that_is_sent_is_whole(tmp_path: Path) -> None:
    package, metadata = stage_package(tmp_path / "sent")
    code = (
        "import study.config.space.read as spaces, study.launch, importlib.metadata as m; print("
        "study.__file__, spaces.space_names(), study.launch.cluster_folder(), "
        "m.version('finetune-study'))"
    )
    # What the nodes find: these folders' parents, and nothing of this checkout.
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{package.parent}:{metadata.parent}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.startswith(str(package)) and f"{package}/cluster" in told
    assert "'default'" in told and version("finetune-study") in told
    sent = {p.relative_to(package) for p in package.rglob("*") if p.is_file()}
    here = ROOT / "study"
    assert {p.relative_to(here) for p in here.rglob("*.py")} <= sent
    assert not any("__pycache__" in path.parts for path in sent)


def test_requirements_are_pinned_to_what_is_installed() -> None:
    pins = [Requirement(line) for line in pinned_requirements()]
    pinned = {pin.name: str(pin.specifier) for pin in pins}
    for name, specifier in pinned.items():
        assert specifier == f"=={version(name).partition('+')[0]}", name
    # Direct, of an extra of Ray's, and two steps away.
    assert {"torch", "deepspeed", "optuna", "pyarrow", "markupsafe"} <= pinned.keys()
    # The cluster's own, and what only tests need.
    assert not {"ray", "finetune-study", "pytest", "ruff"} & pinned.keys()


def test_requirements_are_those_of_the_constraints_file() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    names = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines}
    unnamed = {Requirement(line).name for line in pinned_requirements()} - names
    assert unnamed <= {"setuptools"}  # every environment comes with one


def test_ray_knows_every_key_of_the_environment(tmp_path: Path) -> None:
    environment = job_environment(tmp_path / "a.zip", [tmp_path], ["numpy==2.4.6"], {"A": "1"})
    check_keys(environment)
    assert environment["env_vars"]["A"] == "1"
    for wrong in (
        environment | {"workingdir": "x"},
        environment | {"pip": {"pacakges": []}},
        environment | {"config": {"setup_timeout": 1}},
    ):
        with pytest.raises(ValueError, match="Ray does not know"):
            check_keys(wrong)


def test_without_pip_nothing_is_installed(tmp_path: Path) -> None:
    assert "pip" not in job_environment(tmp_path / "a.zip", [], None, {})


@pytest.mark.parametrize(
    "name",
    ["PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "HF_TOKEN", "WANDB_API_KEY"],
)
def test_credentials_are_no_variables_of_a_job(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=name) as caught:
        job_environment(tmp_path / "a.zip", [], None, {name: "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_a_password_in_a_variables_value_is_none_either(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="DATABASE_URL") as caught:
        job_environment(tmp_path / "a.zip", [], None, {"DATABASE_URL": "postgresql://u:pw1@h/d"})
    assert "pw1" not in str(caught.value)


def test_nothing_of_the_local_environment_goes_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    assert "hunter2" not in str(job_environment(tmp_path / "a.zip", [], None, {}))
