"""The batch script, run with stand-ins for Slurm's programs: what it starts, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from study import open_study
from study.launch import render_cluster_file
from study.protocol.records import TrialState
from tests.helpers import real_studies
from tests.helpers.cluster_studies import SHAPES, write_study

JOB_ID = str(os.getpid())
RAY_FILES = Path(f"/tmp/ray-{os.getuid()}-{JOB_ID}")
# Slurm's programs for two nodes that are both this machine. The first process of each step is
# noted: `scancel` signals it, as it does the batch script.
SLURM = {
    "srun": 'echo $$ >> tasks; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": 'if [[ $1 == show ]]; then printf "localhost\\nlocalhost\\n"; '
    'else echo "$@" >> scontrol.log; exit "${REQUEUE_CODE:-0}"; fi',
}
# Ray that starts nothing, and its nodes joining at once, for the tests of how the script ends.
NO_RAY = {"ray": 'echo "$@" >> ray.log; exec sleep 300', "python": "exec cat > /dev/null"}
# Ray as it ends when it is asked to: its workers at once, itself half a minute later.
SLOW_RAY = NO_RAY | {
    "ray": f"mkdir -p {RAY_FILES}/session; sleep 300 & echo $! >> workers\n"
    "trap 'kill $!; sleep 30; exit 143' TERM; wait",
}
REAL_RAY = {
    name: f'exec {Path(sys.executable).parent / name} "$@"' for name in ("ray", "python")
}  # fmt: skip
CANCEL_SECONDS = 18
WHOLE_SECONDS = 25
"""In which a cancelled job is over; Slurm kills what is left after 30."""
# What `study run` does when it is told to stop: it writes checkpoints and exits with 130.
STUDY = (
    "trap 'echo stopped > study.log; kill $!; exit 130' TERM\n"
    'sleep 300 > /dev/null 2>&1 &\necho "$@" > started.log; wait'
)


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts the script, rendered for two nodes, with these programs and variables; seconds that
    trials have for their checkpoints after `scancel`."""

    def start(
        programs: dict[str, str], cancel_seconds: int = CANCEL_SECONDS, **variables: str
    ) -> subprocess.Popen[str]:
        resources, options, _ = SHAPES["2-workers-on-2-nodes"]
        study = write_study(tmp_path, resources)
        environment = tmp_path / "my venv"
        settings = {"environment": str(environment), "study": study.name}
        rendered = render_cluster_file("slurm", study, settings=settings, **options)
        as_shipped = f"CANCEL_SECONDS={CANCEL_SECONDS} "
        assert rendered.text.count(as_shipped) == 1
        script = rendered.text.replace(as_shipped, f"CANCEL_SECONDS={cancel_seconds} ")
        (tmp_path / "job.sh").write_text(script)
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
    both_up = "until [[ -e ray.log && $(wc -l < ray.log) == 2 ]]; do sleep 0.05; done\n"
    code, output = ended(start(NO_RAY | {"study": f'{both_up}echo "$@" > started.log'}))
    assert code == 0, output
    assert (tmp_path / "started.log").read_text() == "run study.yaml\n"
    assert (tmp_path / f"slurm-{JOB_ID}.finished").exists()
    assert not requeued(tmp_path)
    started = (tmp_path / "ray.log").read_text().splitlines()
    worker, head = sorted(started, key=lambda arguments: "--head" in arguments)
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


def processes(file: Path) -> list[int]:
    """Those that are noted in a file and still alive."""
    noted = map(int, file.read_text().split())
    return [
        pid
        for pid in noted
        if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    ]


def scancel(job: subprocess.Popen[str], folder: Path) -> None:
    """The first thing that Slurm does, also at the time limit and before preemption."""
    for pid in (job.pid, *processes(folder / "tasks")):
        os.kill(pid, signal.SIGTERM)


def test_ray_stays_until_the_trials_of_a_cancelled_job_have_their_checkpoints(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    checkpoint = "sleep 2; kill -0 $(cat workers) && touch checkpoint"
    job = start(SLOW_RAY | {"study": STUDY.replace("exit 130", f"{checkpoint}; exit 130")})
    wait_for(tmp_path / "started.log")
    began = time.monotonic()
    scancel(job, tmp_path)
    code, output = ended(job)
    assert (tmp_path / "checkpoint").exists(), output
    assert code == 130 and time.monotonic() - began < 10
    assert not processes(tmp_path / "workers") and not RAY_FILES.exists()
    assert not requeued(tmp_path)


def test_a_cancelled_job_is_over_in_time_though_its_study_hangs(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    hangs = "trap '' TERM; touch started.log; exec sleep 300"
    job = start(SLOW_RAY | {"study": hangs}, cancel_seconds=1)
    wait_for(tmp_path / "started.log")
    began = time.monotonic()
    scancel(job, tmp_path)
    time.sleep(0.3)
    scancel(job, tmp_path)  # impatient people repeat it
    code, _ = ended(job)
    assert code == 137 and time.monotonic() - began < 1 + WHOLE_SECONDS - CANCEL_SECONDS
    assert not processes(tmp_path / "workers") and not RAY_FILES.exists()
    assert not requeued(tmp_path)


def test_the_nodes_end_in_time_though_the_script_is_gone(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    job = start(
        SLOW_RAY | {"study": "echo $$ > study.pid; exec sleep 300"}, cancel_seconds=1
    )  # fmt: skip
    wait_for(tmp_path / "study.pid")
    wait_for(tmp_path / "workers")
    job.kill()
    began = time.monotonic()
    scancel(job, tmp_path)
    while processes(tmp_path / "tasks"):
        assert time.monotonic() - began < 1 + WHOLE_SECONDS - CANCEL_SECONDS
        time.sleep(0.05)
    assert not processes(tmp_path / "workers") and not RAY_FILES.exists()
    for pid in processes(tmp_path / "study.pid"):
        os.kill(pid, signal.SIGKILL)
    ended(job)


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
        "import os, ray\n"
        "ray.init(logging_level='ERROR')\n"
        "alive = [node for node in ray.nodes() if node['Alive']]\n"
        "token = os.environ['RAY_AUTH_TOKEN']\n"
        "cpus = ray.cluster_resources()['CPU']\n"
        "open('seen.log', 'w').write(f'{len(alive)} nodes, {cpus:g} CPUs {token}')\n"
        "ray.shutdown()\n"
    )
    # The dashboard is beside the head's port.
    (tmp_path / "stranger.py").write_text(
        "import os, urllib.error, urllib.request\n"
        "host, port = os.environ['RAY_ADDRESS'].split(':')\n"
        "url, seen = f'http://{host}:{int(port) + 1}/api/jobs/', []\n"
        "right = os.environ['RAY_AUTH_TOKEN']\n"
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
    seen, _, token = (tmp_path / "seen.log").read_text().rpartition(" ")
    assert seen == "2 nodes, 2 CPUs" and len(token) == 64  # of two CPUs a node, one is Ray's own
    # Without a token, with a wrong one, with the job's own.
    assert (tmp_path / "stranger.log").read_text() == "[401, 403, 200]"
    (tmp_path / "seen.log").unlink()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert token not in output and not [f for f in files if token.encode() in f.read_bytes()]
    assert not RAY_FILES.exists()


@pytest.mark.ray
def test_a_real_study_that_is_cancelled_leaves_its_checkpoint_and_nothing_else(
    start: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = real_studies.make_folder(tmp_path_factory, "cancelled")
    study = real_studies.write_study(
        folder,
        arms=["full"],
        training={
            "steps": 4000, "global_batch_size": 8, "sequence_length": 48, "evaluations": 2,
        },
        resources={"gpus_per_worker": 0},
    )  # fmt: skip
    job = start(REAL_RAY | {"study": f'exec {sys.executable} -m study "$1" {study}'})
    log = folder / "results" / "logs" / "full-n24-r0-s0.log"
    end = time.monotonic() + 180
    while not (log.exists() and "steps 1 to" in log.read_text()) and time.monotonic() < end:
        time.sleep(0.1)
    began = time.monotonic()
    scancel(job, tmp_path)
    code, output = ended(job)
    took = time.monotonic() - began
    assert code == 130 and took < WHOLE_SECONDS, (took, output)
    assert "`study run" in output and "Traceback" not in output
    first = open_study(study).results().trials[0]
    assert first.state is TrialState.PAUSED and not first.measurements
    checkpoint = folder / "results" / "checkpoints" / first.spec.trial_id
    assert list(checkpoint.rglob("*.safetensors"))
    left = [p for p in psutil.process_iter(["cmdline"]) if str(RAY_FILES) in str(p.info["cmdline"])]
    assert not left and not RAY_FILES.exists()


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
