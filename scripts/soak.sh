#!/usr/bin/env bash
# Train the embedded default for 2,000 steps, with evaluations and checkpoints, and say whether anything grows
#
#     scripts/soak.sh                                   about an hour on two cores
#     NAME=short scripts/soak.sh --steps 200
#
# Arguments go to grpo.train. Of the environment: NAME (the run is runs/NAME, its output runs/NAME.log), SECONDS_BETWEEN
# (samples), PYTHON. Exit status: 0 where nothing grows, 1 where something may, else that of the run.
set -euo pipefail

NAME=${NAME:-soak}
PYTHON=${PYTHON:-python}
run=runs/$NAME

for argument in "$@"; do
    case ${argument//_/-} in
        --name | --name=* | --runs-dir* | --resume)
            echo "error: $argument is this script's own to set: use NAME. A soak is one process, and not resumed." >&2
            exit 2
            ;;
    esac
done
if [[ -e $run ]]; then
    echo "error: $run exists already. Remove it, or give another NAME." >&2
    exit 2
fi

mkdir -p runs
"$PYTHON" -m grpo.train --algo dr_grpo --steps 2000 --save-every 50 "$@" --runs-dir runs --name "$NAME" \
    > "$run.log" 2>&1 &
trainer=$!
trap 'kill "$trainer" 2> /dev/null || true' EXIT
"$PYTHON" "$(dirname "$0")/soak.py" "$run" --pid "$trainer" --seconds-between "${SECONDS_BETWEEN:-5}"
status=0
wait "$trainer" || status=$?
if ((status)); then
    echo "the run failed with status $status; the end of $run.log:" >&2
    tail -n 15 "$run.log" >&2
    exit "$status"
fi
"$PYTHON" "$(dirname "$0")/soak.py" "$run"
