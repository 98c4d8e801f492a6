#!/usr/bin/env bash
# A study under Slurm, on one node or several. The one command, on the login node, after editing
# what is marked <--:
#
#   sbatch cluster/slurm.sh
#
# `study cluster render slurm study.yaml --output job.sh` fills it from a study of yours. The study,
# its results, this program's environment and this script's folder are on a file system that all
# nodes share. Before the time limit the study stops with its checkpoints, and the job goes back to
# the queue to continue; `scancel` ends it for good, with checkpoints too. The job's exit code is the
# study's. When the study is done, the file `slurm-JOBID.finished` is there.
#SBATCH --job-name=my-study  # <-- name
#SBATCH --nodes=1  # <-- nodes
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=33  # <-- cpus
#SBATCH --mem=256G  # <-- memory
#SBATCH --gpus-per-node=8  # <-- gpus
#SBATCH --time=24:00:00  # <-- time
##SBATCH --partition=gpu  # <-- partition
##SBATCH --account=project  # <-- account
#SBATCH --output=slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --no-kill
# USR1 says that time is nearly up, to this script alone. TERM stays what `scancel` sends.
#SBATCH --signal=B:USR1@300
# shellcheck disable=SC2329  # functions that traps, steps and `run` call
set -euo pipefail

STUDY=study.yaml  # <-- study
ENVIRONMENT="$HOME/study-venv"  # <-- environment
# Where nodes have several networks, e.g. InfiniBand: the interface that carries the gradients.
# INTERFACE=ib0  # <-- interface
GRACE_SECONDS=240       # for checkpoints, of the 300 between the signal and the time limit
CANCEL_SECONDS=18       # for checkpoints after `scancel`: 30 s later (KillWait) Slurm kills all
START_SECONDS=600       # for all nodes to join
MAX_REQUEUES=50         # a study that gets nowhere does not come back for ever

cd "${SLURM_SUBMIT_DIR:-$PWD}"
export PATH="$ENVIRONMENT/bin:$PATH"
if [[ -n ${INTERFACE:-} ]]; then
    export NCCL_SOCKET_IFNAME=$INTERFACE GLOO_SOCKET_IFNAME=$INTERFACE
fi
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head_ip=$(getent ahostsv4 "${nodes[0]}" | awk 'NR == 1 {print $1}')
head_ip=${head_ip:-${nodes[0]}}

# Jobs that share a node have Ray's ports, files and token for themselves. The token is in no file.
gcs_port=$((20000 + SLURM_JOB_ID % 3000 * 4))
ray_files=/tmp/ray-$UID-$SLURM_JOB_ID
finished=$PWD/slurm-$SLURM_JOB_ID.finished
rm -f "$finished"
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_ADDRESS=$head_ip:$gcs_port

signals=0 time_is_up='' driver='' code=0 steps=() timers=()

# The study hears the first signal only, and is killed where checkpoints take longer than that.
stop() {
    signals=$((signals + 1))
    [[ -n $driver ]] || return 0
    ((signals > 1)) || kill -TERM "$driver" 2> /dev/null || true
    (sleep "$1" && kill -KILL "$driver") > /dev/null 2>&1 &
    timers+=($!)
}
stop_in_time() {
    echo "slurm.sh: time is nearly up, stopping the study"
    time_is_up=yes
    stop "$GRACE_SECONDS"
}
clean_up() {
    local left timer
    trap '' USR1 TERM INT
    for timer in "${timers[@]}"; do pkill -P "$timer" || kill "$timer" || true; done 2> /dev/null
    for ((left = signals ? 20 : 150; left > 0; left--)); do
        # More than once: a step that is just starting may miss it.
        kill -USR2 "${steps[@]}" 2> /dev/null || break
        sleep 0.2
    done
    kill -KILL "${steps[@]}" 2> /dev/null || true
    ((${#steps[@]} == 0)) || wait "${steps[@]}" || true
}
trap stop_in_time USR1
trap 'stop "$CANCEL_SECONDS"' TERM INT
trap clean_up EXIT

# Runs a command that the traps above can stop; its exit status is in `code`.
run() {
    local seen=-1
    if ((signals)); then
        code=143
        return
    fi
    "$@" &
    driver=$!
    # A signal ends `wait` before the command: wait again until no new one has come.
    while ((seen != signals)); do
        seen=$signals code=0
        wait "$driver" || code=$?
    done
    driver=''
}

# On a node: Ray, until USR2 says that it is no longer needed. `scancel` sends TERM to the study and
# to Ray's nodes at once: there it only sets a limit, or no trial could write its checkpoint.
keep_ray() {
    local files=$1 seconds=$2 ray='' over='' timer='' code=0
    shift 2
    end() {
        over=yes
        exec 2> /dev/null  # bash would tell that it was killed
        [[ -z $ray ]] || kill -KILL "$ray" || true
        [[ -z $ray ]] || pkill -KILL -s "$ray" || true
    }
    trap end USR2
    trap '(sleep "$seconds" && kill -USR2 $$) > /dev/null 2>&1 & timer=$!' TERM
    setsid ray start --block --temp-dir="$files" "$@" &
    ray=$!
    [[ -z $over ]] || end
    # A signal ends `wait` before the command.
    while :; do
        wait "$ray" && code=0 || code=$?
        kill -0 "$ray" 2> /dev/null || break
    done
    # What was just killed may still write.
    rm -rf "$files" || { sleep 1 && rm -rf "$files"; } || true
    [[ -z $timer ]] || pkill -P "$timer" || kill "$timer" || true
    return "$code"
}

# Ray on a node, in a step of its own, out of reach of a signal to this script's processes. The
# operating system picks the ports that nobody needs to know; dashboards answer on their own node
# alone. One CPU of a node is Ray's own.
start_ray() {
    local node=$1
    shift
    setsid srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" \
        --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        bash -c "$(declare -f keep_ray)"'; keep_ray "$@"' keep_ray \
        "$ray_files" $((CANCEL_SECONDS + 4)) \
        --num-cpus=$((SLURM_CPUS_PER_TASK - 1)) --disable-usage-stats --min-worker-port=0 \
        --max-worker-port=0 --dashboard-agent-listen-port=0 "$@" &
    steps+=($!)
}

# Until so many nodes have joined. Fails after START_SECONDS, or when Ray ends on one of them.
wait_for_nodes() {
    exec python - "$1" "$START_SECONDS" "${steps[@]}" << 'PYTHON'
import os, sys, time
from ray._raylet import GcsClient

wanted, seconds, steps = int(sys.argv[1]), float(sys.argv[2]), [int(pid) for pid in sys.argv[3:]]
end, alive = time.monotonic() + seconds, 0
while time.monotonic() < end:
    for pid in steps:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            sys.exit("slurm.sh: Ray ended on a node before all had joined; see above")
    try:
        nodes = GcsClient(address=os.environ["RAY_ADDRESS"]).get_all_node_info(timeout=5)
        alive = sum(node.state == 0 for node in nodes.values())
    except Exception:  # the head is not up yet
        alive = 0
    if alive >= wanted:
        sys.exit(0)
    time.sleep(1)
sys.exit(f"slurm.sh: {alive} of {wanted} nodes joined within {seconds:g} s")
PYTHON
}

echo "slurm.sh: Ray on ${#nodes[@]} nodes, its head on ${nodes[0]} ($RAY_ADDRESS)"
start_ray "${nodes[0]}" --head --node-ip-address="$head_ip" --port="$gcs_port" \
    --ray-client-server-port=$((gcs_port + 2)) --dashboard-host=127.0.0.1 --dashboard-port=$((gcs_port + 1))
run wait_for_nodes 1
if ((code == 0)); then
    for node in "${nodes[@]:1}"; do start_ray "$node" --address="$RAY_ADDRESS"; done
    run wait_for_nodes "${#nodes[@]}"
fi
if ((code == 0)); then run study run "$STUDY"; fi
trap - EXIT
clean_up

if ((code == 0)); then
    echo "slurm.sh: the study is done"
    date > "$finished"
elif [[ -n $time_is_up ]] && ((code == 130 || code == 137 || code == 143)); then
    if ((${SLURM_RESTART_COUNT:-0} >= MAX_REQUEUES)); then
        echo "slurm.sh: not done after $MAX_REQUEUES requeues; sbatch it again to continue" >&2
    elif scontrol requeue "$SLURM_JOB_ID"; then
        echo "slurm.sh: requeued; the study continues when the job starts again"
    else
        echo "slurm.sh: cannot requeue; sbatch it again to continue" >&2
    fi
fi
exit "$code"
