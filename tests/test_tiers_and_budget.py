"""The suite's own tiers and budget."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.budget import Cost, Meter, excesses
from tests.helpers.forked import METHOD
from tests.tiers import TIERS, tiered, wanted

ROOT = Path(__file__).parents[1]
BURN = "import time\nwhile time.process_time() < 0.3: pass"


def test_a_default_test_over_its_cpu_time_is_told_and_one_of_another_tier_is_not() -> None:
    costs = {
        "slow": Cost("default", cpu_seconds=91),
        "quick": Cost("default", cpu_seconds=89),
        "elsewhere": Cost("ray", cpu_seconds=1000, process_starts=10_000),
    }
    assert excesses(costs, 1.0) == ["slow took 91 s of CPU time; a test may take 90 s"]
    assert excesses(costs, 1.1) == [], "a slower machine has more"


def test_the_process_starts_of_the_default_tier_count_together() -> None:
    costs = {f"{k}": Cost("default", process_starts=100) for k in range(4)}
    assert excesses(costs, 1.0) == []
    (told,) = excesses(costs | {"one more": Cost("default", process_starts=1)}, 1.0)
    assert "started 401 processes; it may start 400" in told


def test_processes_are_counted_however_they_start_with_the_time_that_they_take() -> None:
    meter = Meter()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    for method in ("fork", METHOD):
        process = multiprocessing.get_context(method).Process(target=exec, args=(BURN,))
        process.start()
        process.join()
    cpu_seconds, starts = meter.look()
    assert cpu_seconds > 0.8
    assert 3 <= starts <= 5  # the server and its tracker may have to be started first


def test_what_only_a_first_session_has_to_do_is_not_counted() -> None:
    meter = Meter()
    with meter.uncounted():
        subprocess.run([sys.executable, "-c", BURN], check=True)
    cpu_seconds, starts = meter.look()
    assert cpu_seconds < 0.25 and starts == 0


def test_a_session_over_the_budget_fails_and_says_so(tmp_path: Path) -> None:
    test = tmp_path / "test_many.py"
    test.write_text(
        "import os\n\n\ndef test_many():\n    for _ in range(401):\n"
        "        pid = os.fork()\n        if not pid:\n            os._exit(0)\n"
        "        os.waitpid(pid, 0)\n    import time; time.sleep(0.2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.tiers", "-p", "tests.budget", "-c",
         os.devnull, "--rootdir", str(tmp_path), str(test)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "1 passed" in done.stdout and done.returncode == 1, done.stdout + done.stderr
    assert "Over the budget of tests/README.md: the default tier started 401" in done.stdout


CASES = tiered(itertools.product("ab", (1, 2)), lambda _, k: "default" if k == 1 else "exhaustive")


@pytest.mark.parametrize(("letter", "number"), CASES)
def test_a_fixture_learns_which_cases_it_has_to_run(
    request: pytest.FixtureRequest, letter: str, number: int
) -> None:
    found = wanted(request, "letter", "number")
    assert (letter, number) in found and len(set(found)) == len(found)
    assert set(found) <= {*itertools.product("ab", (1, 2))}
    expression = request.config.getoption("-m")
    if expression == "default":
        assert {k for _, k in found} == {1}


def test_every_tier_is_a_marker_and_a_row_of_the_readme(pytestconfig: pytest.Config) -> None:
    markers = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    assert {*TIERS} <= markers
    readme = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{tier}` |" in readme for tier in TIERS)
