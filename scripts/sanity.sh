#!/usr/bin/env bash
# Train with the true, a random, a constant and a sign-flipped reward, and say whether each arm did what it must
#
#     scripts/sanity.sh                                        about five minutes on two cores
#     scripts/sanity.sh --advantage ./mine.py:rank             does my own ingredient learn what it should?
#
# Arguments go to every grpo.train. Of the environment: ARMS (of control random constant flipped), NAME (the runs are in
# runs/NAME), PYTHON. Exit status: 0 where every arm did what it must, 1 where one did not, 2 for bad input.
set -euo pipefail

ARMS=${ARMS:-control random constant flipped}
NAME=${NAME:-sanity-$(date +%Y%m%d-%H%M%S)}
PYTHON=${PYTHON:-python}
scripts=$(dirname "$0")

for argument in "$@"; do
    case ${argument//_/-} in
        --model* | --data | --data=* | --reward | --reward=* | --name | --name=* | --runs-dir* | --resume)
            echo "error: $argument is this script's own to set: the arms are of the embedded model and its task." >&2
            exit 2
            ;;
    esac
done

reward_of() { # arm: the first verifier is the true one, which says what is correct, whatever its weight
    case $1 in
        control) echo math_answer ;;
        random) echo "math_answer=0 $scripts/sanity_rewards.py:coin" ;;
        constant) echo "math_answer=0 $scripts/sanity_rewards.py:constant" ;;
        flipped) echo math_answer=-1 ;;
        *)
            echo "error: there is no arm '$1'. ARMS takes: control random constant flipped." >&2
            return 2
            ;;
    esac
}

for arm in $ARMS; do reward_of "$arm" > /dev/null; done
mkdir -p "runs/$NAME/logs"
for arm in $ARMS; do
    log=runs/$NAME/logs/$arm.log
    read -ra reward <<< "$(reward_of "$arm")"
    echo "runs/$NAME/$arm starts"
    # A cut response keeps its reward: the limit on the length must not be an arm's second, true reward.
    "$PYTHON" -m grpo.train --algo dr_grpo --steps 40 --eval-every 0 --eval-problems 1024 --truncated keep --wandb off \
        "$@" --runs-dir "runs/$NAME" --name "$arm" --reward "${reward[@]}" > "$log" 2>&1 && continue
    status=$?
    echo "runs/$NAME/$arm failed; the end of $log:" >&2
    tail -n 15 "$log" >&2
    exit $status
done
read -ra arms <<< "$ARMS"
"$PYTHON" "$scripts/sanity.py" "runs/$NAME" --arms "${arms[@]}"
