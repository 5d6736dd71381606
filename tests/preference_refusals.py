"""What `python -m grpo.reward_model` and `python -m grpo.dpo` refuse without torch: (flags, a part of what is said)."""

DATA = ["--data", "org/name"]
REFUSED_BY_BOTH = [
    ([], "--data names no comparisons. Give a folder of saved rollouts"),
    (["--data", "./nowhere"], "--data ./nowhere: there is no such file or folder"),
    (["--data", "./nowhere.pt"], "--data ./nowhere.pt: there is no such file or folder"),
    (["--data", "./empty"], "--data ./empty: the folder holds no step-*.pt. A run writes such files"),
    (["--data", "mathx"], "'mathx' is neither a built-in of data/"),
    (["--data", "./nowhere.jsonl"], "nowhere.jsonl cannot be read"),
    (["--data", "./bad.jsonl"], "--data ./bad.jsonl, row 0: it is no comparison. Its columns are: question."),
    (["--data", "./equal.jsonl"], "--data ./equal.jsonl holds no comparison: 1 dropped with equal responses."),
    ([*DATA, "--model", "./nowhere"], "There is no model folder nowhere."),
    ([*DATA, "--epochs", "0"], "--epochs 0 must be more than 0"),
    ([*DATA, "--learning-rate", "0"], "--learning-rate 0.0 must be more than 0"),
    ([*DATA, "--seed", "-1"], "--seed -1 must be at least 0"),
    ([*DATA, "--name", "taken"], "The run folder runs/taken exists already."),
    ([*DATA, "--schedule", "steep"], "invalid choice 'steep'"),
    ([*DATA, "--data-dir", "./empty"], "is a name on the hub, and is not looked for in a folder"),
]
REFUSED_BY_REWARD_MODEL = [
    ([*DATA, "--margin", "-1"], "--margin -1.0 must not be negative"),
    ([*DATA, "--comparisons-per-update", "0"], "--comparisons-per-update 0 must be more than 0"),
]
REFUSED_BY_DPO = [
    ([*DATA, "--beta", "0"], "--beta 0.0 must be more than 0"),
    ([*DATA, "--label-smoothing", "0.5"], "must be at least 0 and less than 0.5"),
    ([*DATA, "--label-smoothing", "-0.1"], "must be at least 0 and less than 0.5"),
    ([*DATA, "--loss", "ipo", "--label-smoothing", "0.1"], "ipo knows none"),
    ([*DATA, "--loss", "hinge"], "invalid choice 'hinge'"),
    ([*DATA, "--template", "nope"], "There is no template 'nope'"),
    ([*DATA, "--pairs-per-prompt", "0"], "--pairs-per-prompt 0 must be more than 0"),
]
