"""The flags of training in groups, one line a flag. What is left unset, the preset and the --algo row fill in."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from grpo.algorithm.choices import (
    IMPORTANCE,
    KL_ESTIMATOR_NAMES,
    KL_PLACES,
    RATIO_NAMES,
    SURROGATE_NAMES,
    TRUNCATED,
    UNIFORM_GROUPS,
)
from grpo.algorithm.kl_weight import HORIZON
from grpo.algorithm.table import ALGORITHMS
from grpo.logs.guards import STOPS
from grpo.logs.log_targets import LOG_TARGETS
from grpo.logs.wandb_run import WANDB_MODES
from grpo.model.settings import (
    OPTIMIZERS,
    PRECISION_NAMES,
    RANK_MINUTES,
    SAVE_DTYPES,
    SCHEDULES,
)

AlgorithmName = Literal[tuple(ALGORITHMS)]
SurrogateName = Literal[SURROGATE_NAMES]
RatioName = Literal[RATIO_NAMES]
KLEstimatorName = Literal[KL_ESTIMATOR_NAMES]
KLPlace = Literal[KL_PLACES]
TruncatedName = Literal[TRUNCATED]
UniformGroupsName = Literal[UNIFORM_GROUPS]
ImportanceName = Literal[IMPORTANCE]
OptimizerName = Literal[OPTIMIZERS]
ReferenceDevice = Literal["same", "cpu"]
PrecisionName = Literal[PRECISION_NAMES]
ScheduleName = Literal[SCHEDULES]
SaveDtypeName = Literal[SAVE_DTYPES]
WandbMode = Literal[WANDB_MODES]


@dataclass(frozen=True, kw_only=True)
class TaskFlags:
    """What is trained, and on what."""

    model: str | None = None
    """Hugging Face causal LM, a folder or a hub name; unset: the embedded tiny model."""
    data: str | None = None
    """A name in data/, a .jsonl, .csv, .parquet or .py file, or a hub name; unset: arithmetic (embedded) or math12k."""
    eval_data: tuple[str, ...] | None = None
    """Held-out data, one set or several; unset: the test split of --data, or where it has none every tenth row."""
    eval_problem_column: str | None = None
    """Column of --eval-data that holds the problem, where it is no set of data/; unset: that of --data."""
    eval_answer_column: str | None = None
    """Column of --eval-data that holds the gold answer, where it is no set of data/; unset: that of --data."""
    keep_rate: tuple[float, float] | None = None
    """LOW HIGH, as 0.1 0.9: train on those problems that --pass-rates says are solved at such a rate; unset: all."""
    pass_rates: Path | None = None
    """Results of python -m grpo.evaluate --split train, for --keep-rate; unset: none."""
    template: str = "auto"
    """Prompt template: auto, chat (the tokenizer's own), qwen_math, r1, plain, or a file: ./mine.txt, ./mine.jinja."""
    reward: tuple[str, ...] | None = None
    """Verifiers: names in rewards/, .py files or modules, weighted as in think_format=0.1; unset: those of --data."""


@dataclass(frozen=True, kw_only=True)
class CellFlags:
    """The cells of a row: each overrides the row's."""

    advantage: str | None = None
    """Rewards [P, G] to advantages: centered and others of algorithm/README.md, or ./f.py:fn; unset: the row's."""
    aggregation: str | None = None
    """Token losses to one number: sequence_mean, constant, token_mean, prompt_mean, or ./f.py:fn; unset: the row's."""
    surrogate: SurrogateName | None = None
    """What is minimised per token: naive, unclipped, clipped, cispo, geometric, soft_gate; unset: the row's."""
    ratio: RatioName | None = None
    """The ratio to the sampling policy: token, sequence (geometric mean), product of the response; unset: the row's."""
    clip_low: float | None = None
    """The ratio is clipped below at 1 minus this (geometric: its logarithm at minus this); unset: the row's."""
    clip_high: float | None = None
    """The ratio is clipped above at 1 plus this (geometric: its logarithm at this); unset: the row's."""
    dual_clip: float | None = None
    """Ratio at which a negative advantage's loss stops growing, as 3; for clipped alone; 0: none; unset: the row's."""
    ratio_cap: float | None = None
    """Absolute cap of the ratio, for the surrogate cispo; unset: the row's."""
    gate_positive: float | None = None
    """Temperature of the surrogate soft_gate where the advantage is positive; unset: the row's."""
    gate_negative: float | None = None
    """Temperature of the surrogate soft_gate elsewhere; unset: the row's."""
    kl_coef: float | None = None
    """Weight of the KL to the frozen reference; unset: the row's."""
    kl_estimator: KLEstimatorName | None = None
    """In the loss: k2, k3_ratio next-token reverse KL, k3 forward; k1 none, or a pull to length; unset: the row's."""
    kl_in: KLPlace | None = None
    """loss, or reward (k1 of the response: the reverse KL, if constant and without std); unset: the row's."""
    old_kl_coef: float | None = None
    """Weight of PPO's penalty, the KL of the policy that sampled to the current one; unset: the row's."""
    entropy_coef: float | None = None
    """Weight of an entropy bonus; unset: the row's."""
    dpo_beta: float | None = None
    """For the advantage best_worst: how much a departure from the reference costs; unset: the row's."""
    discount: float | None = None
    """For the advantage gae: what a reward is worth a token earlier; unset: the row's."""
    gae_lambda: float | None = None
    """For gae: how far ahead an advantage looks, 1 to the end, 0 to the next value; unset: the row's."""
    critic_lambda: float | None = None
    """For gae: the same, for the returns that the critic learns; unset: the row's."""
    whiten: bool | None = None
    """For gae: advantages less their mean, over their deviation, of all tokens of the step; unset: the row's."""
    value_clip: float | None = None
    """For gae: how far a value may move in a step and gain by it; 0: as far as it likes; unset: the row's."""
    max_kl: float | None = None
    """Trust region of an update, KL in nats a token, instead of AdamW, for small models; 0: none; unset: the row's."""
    truncated: TruncatedName | None = None
    """A response cut at the limit: zero (at most 0), mask (out of the loss), keep (its reward); unset: the row's."""
    penalties: tuple[str, ...] | None = None
    """Verifiers that the algorithm adds to --reward, as overlong for dapo; unset: the row's."""
    uniform_groups: UniformGroupsName | None = None
    """Groups whose first verifier gives all the same: keep, or drop their tokens from the loss; unset: the row's."""
    dynamic_sampling: int | None = None
    """Times a step may draw anew for groups whose first verifier gives all the same; unset: the row's."""
    importance: ImportanceName | None = None
    """For the sampler-trainer gap: truncate or mask token weights, sequence_mask, none; unset: the row's."""
    importance_low: float | None = None
    """Lower weights are masked (mask: 0.5; sequence_mask, its geometric mean: 0.99); unset: the row's."""
    importance_cap: float | None = None
    """Higher weights are truncated (2) or masked (mask: 5; sequence_mask: 1.01); 0: no correction; unset: the row's."""

    def given(self) -> dict[str, Any]:
        """The cells that a flag has set."""
        cells = {field.name: getattr(self, field.name) for field in fields(CellFlags)}
        return {name: value for name, value in cells.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class AlgorithmFlags(CellFlags):
    """The algorithm: a row of the table, its cells, and what belongs to them."""

    algo: AlgorithmName = "dr_grpo"
    """Row of the algorithm table."""
    critic: str | None = None
    """For gae: the critic to start from, a reward model's folder; unset: the policy's layers, and values of 0."""
    critic_learning_rate: float | None = None
    """For gae: AdamW's learning rate of the critic; unset: 5e-4 (embedded) or 1e-5."""
    critic_warmup: int = 0
    """For gae: steps in which the critic alone is trained, before the policy begins."""
    ptx_data: Path | None = None
    """Documents that each update imitates beside its rewards: .txt, .jsonl, .csv or .parquet; unset: none."""
    ptx_coef: float | None = None
    """For --ptx-data: weight of a token's mean −log p in the loss, such as 0.05; unset: must be given with it."""
    ptx_per_update: int | None = None
    """For --ptx-data: documents of an update; unset: 8."""
    kl_target: float | None = None
    """Seek this KL, nats a token, by adapting its weight (--kl-horizon), at most 2% a step; unset: it stays."""
    kl_horizon: int = HORIZON
    """Responses over which --kl-target adapts: a step moves the weight by 0.2 times its share of these, 2% at most."""
    old_kl_target: float | None = None
    """Adapt --old-kl-coef to this KL, nats a token: double it above 1.5 times, halve it below 2/3; unset: it stays."""
    log_kl: bool | None = None
    """Keep the reference and log policy/kl even where the KL weighs 0; unset: on (embedded), off elsewhere."""
    loss_term: str | None = None
    """A term of your own, added to every token's loss: ./f.py:fn, from (logprobs, batch) to [B, T]; unset: none."""
    loss_constant: float | None = None
    """C of the constant aggregation, in tokens; unset: --max-response-tokens."""


@dataclass(frozen=True, kw_only=True)
class StepFlags:
    """The three numbers of a step, the passes over it, and how responses are sampled."""

    problems_per_step: int | None = None
    """Problems drawn for a step; unset: 16 (embedded) or 128."""
    responses_per_problem: int | None = None
    """G: responses sampled for each problem; unset: 8."""
    updates_per_step: int | None = None
    """Optimizer updates that one pass over the step's responses is cut into; unset: 1 (embedded) or 8."""
    epochs_per_step: int = 1
    """Passes over the step's responses."""
    steps: int | None = None
    """Steps of the run; unset: 100 (embedded) or 500."""
    temperature: float = 1.0
    """Sampling temperature in training; the trainer divides its logits by the same."""
    max_prompt_tokens: int | None = None
    """Longer prompts are dropped at load and counted; unset: 32 (embedded) or 1024."""
    max_response_tokens: int | None = None
    """Generation budget of a response; unset: 96 (embedded) or 3000."""


@dataclass(frozen=True, kw_only=True)
class UpdateFlags:
    """The update and the sync."""

    optimizer: OptimizerName = "adamw"
    """AdamW's state, bytes a parameter: adamw 8, adamw_8bit 2 (needs torchao), adamw_offload 8 in the host's memory."""
    precision: PrecisionName = "mixed"
    """Weights and gradients, bytes a parameter: mixed 8, float32; bfloat16 4, where chance rounds the weights."""
    lora_rank: int | None = None
    """Train a LoRA adapter of this rank beside frozen weights, such as 16; unset: all weights are trained."""
    lora_alpha: float | None = None
    """The adapter's change is weighted by this divided by the rank; unset: twice the rank, as TRL has it."""
    lora_targets: tuple[str, ...] | None = None
    """Linear layers that get an adapter, as in q_proj v_proj; unset: all but the head, peft's all-linear."""
    learning_rate: float | None = None
    """AdamW's learning rate; unset: 2e-4 (embedded) or 1e-6, and ten times that with --lora-rank."""
    warmup_updates: int = 0
    """Updates over which the learning rate rises linearly, before the schedule begins."""
    schedule: ScheduleName = "constant"
    """The learning rate after the warm-up: constant, or falling to 0 at the end of the run: linear, cosine."""
    adam_beta1: float = 0.9
    """AdamW's beta 1."""
    adam_beta2: float = 0.95
    """AdamW's beta 2."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm."""
    micro_batch_tokens: int | None = None
    """Token positions in one pass, padding included: memory, never the result; unset: 8192, or what fits the card."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, about a third more time; unset: off (embedded) or on."""
    compile: bool = False
    """Compile the layers (torch.compile): minutes at the start, then faster passes; for runs of hours with vllm."""
    reference_device: ReferenceDevice = "same"
    """Where the reference is between its uses: same as the policy, or cpu, 2 bytes a parameter less on the card."""
    sync_tolerance: float | None = None
    """Largest mean log-probability gap after a sync, nats; unset: 1e-4 in float32, 0.2 in bfloat16."""


@dataclass(frozen=True, kw_only=True)
class EvaluationFlags:
    """Held-out problems during training."""

    eval_every: int | None = None
    """Steps between evaluations, besides the first and the last; 0: only these; unset: 20 (embedded) or 50."""
    eval_problems: int | None = None
    """Held-out problems used of each set; 0: no evaluation; unset: 256 (embedded) or 500."""
    eval_responses: int = 1
    """Responses to each held-out problem; more than 1 give pass@k and maj@k, and a narrower interval."""
    eval_temperature: float = 1.0
    """Sampling temperature of the evaluation; 0 is greedy."""


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The run: its folder, its checkpoints, its logs."""

    name: str | None = None
    """Name of the run and of its folder; unset: algorithm, model and time."""
    runs_dir: Path = Path("runs")
    """Folder that holds the runs."""
    seed: int = 0
    """Seed of draws, sampling and shuffles."""
    save_every: int | None = None
    """Steps between checkpoints that --resume continues from; 0: only where the run ends early; unset: 0 or 50."""
    keep: int = 2
    """Checkpoints that stay, the newest ones; and the best by held-out accuracy besides."""
    save_dtype: SaveDtypeName | None = None
    """Precision in which the model at the end is saved, such as bfloat16; unset: that of its weights."""
    push_to_hub: str | None = None
    """Push the model at the end to this private repository of the hub, such as OWNER/my-model; unset: no push."""
    resume: bool = False
    """Continue the run --name from its newest checkpoint, bit for bit; other flags are read from its config.json."""
    tensor_parallel: int = 1
    """Processes of torchrun that are one engine, for a model that is too large for one card to generate with."""
    rank_minutes: float = RANK_MINUTES
    """Minutes that the processes of torchrun wait for one another (10 at most where they compute together)."""
    stop_on: tuple[Literal[STOPS], ...] = ()
    """Warnings that end the run: reward_collapse and others of logs/README.md."""
    plan: bool = False
    """Print what the run would take of the card that is here, and end: 0 if it fits, 1 if not."""
    plan_for: float | None = None
    """The same for a card of so many GiB, on any machine."""
    plan_ranks: int = 1
    """The same for so many cards of one machine, each a process of torchrun."""
    log_samples: int = 2
    """Whole responses written a step, with their rewards."""
    save_rollouts: bool = False
    """Write each step's responses and rewards to runs/NAME/rollouts, for python -m grpo.replay."""
    log_to: tuple[Literal[LOG_TARGETS], ...] = ()
    """Trackers besides wandb: tensorboard (runs/NAME/tensorboard), trackio, or both; each needs its library."""
    wandb: WandbMode = "auto"
    """online, offline, off, auto (online where an account is configured, else offline)."""
    wandb_project: str = "grpo"
    """wandb project."""
    wandb_group: str | None = None
    """wandb group, for runs that are compared."""
