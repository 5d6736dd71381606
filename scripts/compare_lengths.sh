#!/usr/bin/env bash
# Train GRPO and Dr. GRPO over several seeds, and put their length curves on one page.
#
#     scripts/compare_lengths.sh                              the embedded task
#     SEEDS="0 1 2 3 4" NAME=long scripts/compare_lengths.sh --steps 200 --data sorting
#
# Arguments go to every grpo.train. Of the environment: SEEDS, ALGOS (the first is what others are compared with), NAME
# (of the comparison: its folder runs/NAME and its wandb group), JOBS (runs at a time), PYTHON. Called again, it skips
# the runs that are finished, resumes those that saved a checkpoint (--save-every) and starts the others anew.
set -euo pipefail

SEEDS=${SEEDS:-0 1 2}
ALGOS=${ALGOS:-grpo dr_grpo}
export NAME=${NAME:-lengths}
export PYTHON=${PYTHON:-python}
JOBS=${JOBS:-$(command -v nvidia-smi > /dev/null && echo 1 || echo 2)} # one GPU holds one run
((JOBS == 1)) || export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

train() { # [argument of grpo.train ...] algo seed
    local algo=${*: -2:1} seed=${*: -1}
    local folder=runs/$NAME/$algo-seed$seed log=runs/$NAME/logs/$algo-seed$seed.log resume=()
    if [[ -d $folder/model ]]; then
        echo "$folder: finished earlier"
        return
    elif compgen -G "$folder/checkpoint-*/trainer_state.pt" > /dev/null; then
        echo "$folder: resumes"
        resume=(--resume)
    else
        echo "$folder: starts"
        rm -rf -- "$folder" # of a run that was cut off before its first checkpoint
    fi
    "$PYTHON" -m grpo.train --algo "$algo" --seed "$seed" --runs-dir "runs/$NAME" --name "$algo-seed$seed" \
        --wandb-group "$NAME" "${resume[@]}" "${@:1:$#-2}" >> "$log" 2>&1 && return
    echo "$folder: failed; the end of $log:" >&2
    tail -n 15 "$log" >&2
    return 255 # xargs starts no further run
}
export -f train

for argument in "$@"; do
    case ${argument//_/-} in
        --algo | --algo=* | --seed | --seed=* | --name | --name=* | --runs-dir* | --wandb-group* | --resume)
            echo "error: $argument is this script's own to set: use ALGOS, SEEDS and NAME." >&2
            exit 2
            ;;
    esac
done

mkdir -p "runs/$NAME/logs"
arguments=${*@Q}
if compgen -G "runs/$NAME/*/metrics.jsonl" > /dev/null &&
    [[ $(< "runs/$NAME/arguments") != "$arguments" ]]; then
    echo "error: runs/$NAME was begun with other arguments: $(< "runs/$NAME/arguments") instead of $arguments" >&2
    echo "Give the same, or another NAME." >&2
    exit 2
fi
echo "$arguments" > "runs/$NAME/arguments"

runs=()
for seed in $SEEDS; do
    for algo in $ALGOS; do
        runs+=("$algo $seed")
    done
done
printf '%s\n' "${runs[@]}" | xargs -P "$JOBS" -L 1 bash -c 'train "$@"' train "$@"

folders=()
for algo in $ALGOS; do
    for seed in $SEEDS; do
        folders+=("runs/$NAME/$algo-seed$seed")
    done
done
"$PYTHON" -m grpo.compare "${folders[@]}" --out "runs/$NAME/comparison" --title "Length curves: ${ALGOS// /, }"
