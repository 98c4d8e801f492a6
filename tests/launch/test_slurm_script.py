"""The batch script, run with stand-ins for Slurm's programs: what it starts, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from study.launch import render_cluster_file
from tests.helpers.cluster_studies import SHAPES, write_study

JOB_ID = "4711"
# Slurm's programs for two nodes that are both this machine.
SLURM = {
    "srun": 'echo "$@" >> srun.log; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": 'if [[ $1 == show ]]; then printf "localhost\\nlocalhost\\n"; '
    'else echo "$@" >> scontrol.log; exit "${REQUEUE_CODE:-0}"; fi',
}
# Ray that starts nothing, and its nodes joining at once, for the tests of how the script ends.
NO_RAY = {"ray": "exec sleep 300", "python": "exec cat > /dev/null"}
REAL_RAY = {
    name: f'exec {Path(sys.executable).parent / name} "$@"' for name in ("ray", "python")
}  # fmt: skip
# What `study run` does when it is told to stop: it writes checkpoints and exits with 130.
STUDY = (
    "trap 'echo stopped > study.log; kill $!; exit 130' TERM\n"
    'sleep 300 > /dev/null 2>&1 &\necho "$@" > started.log; wait'
)


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts the script, rendered for two nodes, with these programs and variables."""

    def start(programs: dict[str, str], **variables: str) -> subprocess.Popen[str]:
        resources, options, _ = SHAPES["2-workers-on-2-nodes"]
        study = write_study(tmp_path, resources)
        environment = tmp_path / "my venv"
        settings = {"environment": str(environment), "study": study.name}
        rendered = render_cluster_file("slurm", study, settings=settings, **options)
        (tmp_path / "job.sh").write_text(rendered.text)
        (environment / "bin").mkdir(parents=True)
        for name, body in (SLURM | programs).items():
            program = environment / "bin" / name
            program.write_text(f"#!/usr/bin/env bash\n{body}\n")
            program.chmod(0o755)
        return subprocess.Popen(
            ["bash", "job.sh"],
            cwd=tmp_path,
            env=os.environ
            | {"SLURM_JOB_ID": JOB_ID, "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_CPUS_PER_TASK": "2"}
            | {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}"}
            | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def ended(job: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = job.communicate(timeout=180)
    return job.returncode, output


def wait_for(path: Path) -> None:
    end = time.monotonic() + 120
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert path.exists()


def requeued(folder: Path) -> bool:
    log = folder / "scontrol.log"
    return log.exists() and log.read_text() == f"requeue {JOB_ID}\n"


def test_success_is_exit_code_0_and_a_marker(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    code, output = ended(start(NO_RAY | {"study": 'echo "$@" > started.log'}))
    assert code == 0, output
    assert (tmp_path / "started.log").read_text() == "run study.yaml\n"
    assert (tmp_path / f"slurm-{JOB_ID}.finished").exists()
    assert not requeued(tmp_path)
    steps = (tmp_path / "srun.log").read_text().splitlines()
    head, worker = (step for step in steps if " ray start " in step)
    assert "--head" in head and "--dashboard-host=127.0.0.1" in head and "--address" not in head
    assert "--address=" in worker and "--head" not in worker


@pytest.mark.parametrize("studys", [1, 2, 77])
def test_a_failed_study_fails_the_job_with_its_own_exit_code(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, studys: int
) -> None:
    (tmp_path / f"slurm-{JOB_ID}.finished").touch()  # of the job's run before it was requeued
    code, output = ended(start(NO_RAY | {"study": f"exit {studys}"}))
    assert code == studys, output
    assert not (tmp_path / f"slurm-{JOB_ID}.finished").exists()
    assert not requeued(tmp_path)


def test_when_time_is_up_the_study_stops_and_the_job_is_requeued(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    job = start(NO_RAY | {"study": STUDY})
    wait_for(tmp_path / "started.log")
    job.send_signal(signal.SIGUSR1)
    code, output = ended(job)
    assert (tmp_path / "study.log").read_text() == "stopped\n"
    assert requeued(tmp_path), output
    assert code == 130
    assert not list(tmp_path.glob(".ray-token*"))


def test_a_cancelled_job_stops_and_does_not_come_back(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    job = start(NO_RAY | {"study": STUDY})
    wait_for(tmp_path / "started.log")
    job.send_signal(signal.SIGTERM)
    code, _ = ended(job)
    assert (tmp_path / "study.log").read_text() == "stopped\n"
    assert code == 130
    assert not requeued(tmp_path)


def test_a_study_that_ends_by_itself_just_as_time_is_up_is_done(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    job = start(NO_RAY | {"study": STUDY.replace("exit 130", "exit 0")})
    wait_for(tmp_path / "started.log")
    job.send_signal(signal.SIGUSR1)
    assert ended(job)[0] == 0
    assert (tmp_path / f"slurm-{JOB_ID}.finished").exists()
    assert not requeued(tmp_path)


def test_time_that_is_up_before_the_study_starts_requeues_too(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    programs = NO_RAY | {"python": "touch waiting; exec sleep 300", "study": STUDY}
    job = start(programs)
    wait_for(tmp_path / "waiting")
    job.send_signal(signal.SIGUSR1)
    code, output = ended(job)
    assert requeued(tmp_path), output
    assert code == 143
    assert not (tmp_path / "started.log").exists()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SLURM_RESTART_COUNT": "50"}, "after 50 requeues"),
        ({"REQUEUE_CODE": "1"}, "cannot requeue"),
    ],
)
def test_a_job_that_cannot_come_back_says_how_to_continue(
    start: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    variables: dict[str, str],
    said: str,
) -> None:
    job = start(NO_RAY | {"study": STUDY}, **variables)
    wait_for(tmp_path / "started.log")
    job.send_signal(signal.SIGUSR1)
    code, output = ended(job)
    assert code == 130
    assert f"{said}; sbatch it again to continue" in output


@pytest.mark.ray
def test_two_real_ray_nodes_join_under_a_token_that_goes_with_the_job(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    look = tmp_path / "look.py"
    look.write_text(
        "import os, stat, ray\n"
        "ray.init(logging_level='ERROR')\n"
        "alive = [node for node in ray.nodes() if node['Alive']]\n"
        "mode = stat.S_IMODE(os.stat(os.environ['RAY_AUTH_TOKEN_PATH']).st_mode)\n"
        "cpus = ray.cluster_resources()['CPU']\n"
        "open('seen.log', 'w').write(f'{len(alive)} nodes, {cpus:g} CPUs, mode {mode:o}\\n')\n"
        "ray.shutdown()\n"
    )
    # The dashboard is beside the head's port.
    (tmp_path / "stranger.py").write_text(
        "import os, urllib.error, urllib.request\n"
        "host, port = os.environ['RAY_ADDRESS'].split(':')\n"
        "url, seen = f'http://{host}:{int(port) + 1}/api/jobs/', []\n"
        "right = open(os.environ['RAY_AUTH_TOKEN_PATH']).read()\n"
        "for headers in ({}, {'Authorization': 'Bearer ' + 64 * '0'}, "
        "{'Authorization': 'Bearer ' + right}):\n"
        "    try:\n"
        "        request = urllib.request.Request(url, headers=headers)\n"
        "        seen.append(urllib.request.urlopen(request).status)\n"
        "    except urllib.error.HTTPError as error:\n"
        "        seen.append(error.code)\n"
        "open('stranger.log', 'w').write(str(seen))\n"
    )
    study = f"python {look} && python stranger.py"
    code, output = ended(start(REAL_RAY | {"study": study}))
    assert code == 0, output
    assert (
        tmp_path / "seen.log"
    ).read_text() == "2 nodes, 2 CPUs, mode 600\n"  # of two CPUs a node, one is Ray's own
    # Without a token, with a wrong one, with the job's own.
    assert (tmp_path / "stranger.log").read_text() == "[401, 403, 200]"
    assert not list(tmp_path.glob(".ray-token*"))
    assert not Path(f"/tmp/ray-{os.getuid()}-{JOB_ID}").exists()


@pytest.mark.ray
def test_a_ray_that_does_not_start_fails_the_job_at_once(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    code, output = ended(start(REAL_RAY | {"ray": "exit 3", "study": "touch started.log"}))
    assert code == 1
    assert "Ray ended on a node before all had joined" in output
    assert "joined within" not in output
    assert not (tmp_path / "started.log").exists()
    assert not requeued(tmp_path)
