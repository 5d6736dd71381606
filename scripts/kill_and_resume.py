"""Kill a run again and again, resume it each time, and see whether it is the run that nobody killed.

    python scripts/kill_and_resume.py                                        20 deaths; about 10 minutes on two cores
    python scripts/kill_and_resume.py --kills 3 -- --engine hf --steps 8     what stands after -- goes to grpo.train

A run is made once in peace, and watched: when its rows and its checkpoints appear tells the moments at which the other
dies. Half of these are drawn from the whole life of the run, its start-up included, and half hit it while it saves. It
dies by SIGKILL, as by a machine that is out of memory, and is resumed by its name alone. Exit status 1 where the two
runs differ in more than the clock, a child outlives the trainer, or less than a quarter of the deaths hit a save.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import tyro
from same_run import differences
from trainer_process import GRACE, Death, Lost, Moment, Trainer, last_row, saving

from grpo.files import read_json

FLAGS = (
    "--algo grpo --steps 24 --save-every 2 --keep 2 --eval-every 8 --eval-problems 64 --updates-per-step 2 "
    "--kl-coef 0.04 --kl-target 0.01 --wandb off"
).split()
"""A run with all the state there is: optimizer, schedule, and a weight of the KL that is adapted."""


@dataclass
class Options:
    """Kill a run again and again, and compare it with one that nobody killed."""

    folder: Path = Path("runs/kill-and-resume")
    """Folder for both runs and their logs; it must not be there yet."""
    kills: int = 20
    """Times that the run dies; more, where some come too late for a save that they were to hit."""
    seed: int = 0
    """Seed of the moments."""


@dataclass
class Life:
    """What happened when, in seconds since the process began."""

    rows: dict[int, float] = field(default_factory=dict)
    """Step -> when its row was there."""
    saves: list[float] = field(default_factory=list)
    """How long a checkpoint's folder was there under its hidden name."""


# The two runs ---------------------------------------------------------------------------------------------------------


def in_peace(run: Path, flags: list[str], log: Path) -> Life:
    """A run that nobody kills, watched. Raises: Lost where it fails."""
    life, part_since = Life(), None
    with Trainer(run, flags, log) as trainer:
        while trainer.process.poll() is None:
            if (step := last_row(run)) is not None:
                life.rows.setdefault(step, trainer.age)
            now = trainer.age if saving(run) else None
            if part_since is not None and now is None:
                life.saves.append(trainer.age - part_since)
            part_since = (part_since or now) if now is not None else None
            time.sleep(0.002)
        if trainer.process.returncode:
            raise Lost(f"the run failed with status {trainer.process.returncode}; its log is {log}")
    if not life.saves:
        raise Lost(f"{run} was not seen to save anything: it needs --save-every, and --steps that reach it")
    return life


def moments(life: Life, steps: int, save_every: int, kills: int, rng: Random) -> list[Moment]:
    """When to die: half of the times in a save, else at a moment of the life up to the last row.

    In the order of the steps, so that each of them is still to come; deaths in the start-up are strewn among them.
    """
    duration = min(life.saves)  # the others take longer, and so do most saves of a busy machine
    ordered, early = [], []
    for number in range(kills):
        if number % 2 == 0:
            step = rng.randrange(save_every, steps + 1, save_every)
            ordered.append(Moment(step, True, rng.uniform(0, duration)))
            continue
        at = rng.uniform(0, max(life.rows.values()))
        step, since = max(((step, time) for step, time in life.rows.items() if time <= at), default=(None, 0.0))
        (early if step is None else ordered).append(Moment(step, False, at - since))
    ordered.sort(key=lambda moment: moment.step)
    for moment in early:
        ordered.insert(rng.randint(0, len(ordered)), moment)
    return ordered


def how_to_begin(run: Path, flags: list[str]) -> list[str]:
    """The name is enough for a run that has begun: that has written its config. Else there is nothing to go on from."""
    if (run / "config.json").exists():
        return ["--resume"]
    shutil.rmtree(run, ignore_errors=True)
    return flags


def killed(run: Path, flags: list[str], plan: list[Moment], logs: Path) -> list[Death]:
    """A run that dies at each moment of the plan, and is finished then. Raises: Lost.

    There may be more deaths than moments: one that comes too late for its save is tried again.
    """
    deaths = []
    for moment in plan:
        for shorter in (1, 4, 16, 64):  # a save that was done before the death is aimed at again
            number = len(deaths) + 1
            with Trainer(run, how_to_begin(run, flags), logs / f"killed-{number:02d}.log") as trainer:
                deaths.append(trainer.die_at(replace(moment, delay=moment.delay / shorter)))
            print(told(number, deaths[-1]), flush=True)
            if deaths[-1].half_saved or not moment.in_save:
                break
    log = logs / "killed-end.log"
    with Trainer(run, how_to_begin(run, flags), log) as trainer:
        if trainer.process.wait():
            raise Lost(f"the run failed with status {trainer.process.returncode}; its log is {log}")
    return deaths


def told(number: int, death: Death) -> str:
    """A line about a death."""
    moment = death.moment
    after = "its start" if moment.step is None else f"the {'save' if moment.in_save else 'row'} of step {moment.step}"
    left = f"; left over: {', '.join(death.half_saved)}" if death.half_saved else ""
    orphans = f"; OUTLIVED by {', '.join(death.orphans)}" if death.orphans else ""
    row = "none" if death.last_row is None else f"step {death.last_row}"
    return f"death {number:2d}: {moment.delay:6.3f} s after {after}; last row: {row}{left}{orphans}"


def verdict(deaths: list[Death], differing: list[str]) -> list[str]:
    """What is not as it must be, a line each."""
    orphans = sum(len(death.orphans) for death in deaths)
    in_saves = sum(bool(death.half_saved) for death in deaths)
    return [
        *differing,
        *[f"{orphans} children outlived the trainer by {GRACE:g} s"] * bool(orphans),
        *[f"only {in_saves} of {len(deaths)} deaths hit a save: another --seed may"] * (4 * in_saves < len(deaths)),
    ]


def main(options: Options, passed_on: list[str]) -> int:
    """Exit status: 0 where the killed run is the other one, 1 where it is not, 2 where a run could not be made."""
    if options.folder.exists():
        print(f"error: {options.folder} exists already. Remove it, or choose another --folder.", file=sys.stderr)
        return 2
    logs = options.folder / "logs"
    logs.mkdir(parents=True)
    flags = [*FLAGS, *passed_on]
    whole, other = options.folder / "whole", options.folder / "killed"
    try:
        life = in_peace(whole, flags, logs / "whole.log")
        config = read_json(whole / "config.json", "")
        plan = moments(life, config["steps"], config["save_every"], options.kills, Random(options.seed))
        deaths = killed(other, flags, plan, logs)
    except Lost as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    wrong = verdict(deaths, differences(whole, other))
    in_saves = sum(bool(death.half_saved) for death in deaths)
    print("\n".join(wrong) if wrong else f"after {len(deaths)} deaths, {in_saves} in a save, it is the same run")
    return 1 if wrong else 0


if __name__ == "__main__":
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    sys.exit(main(tyro.cli(Options, args=sys.argv[1:cut]), sys.argv[cut + 1 :]))
