"""Every knob of training, and what follows from them: one dataclass, of the groups of run_flags.py.

Precedence: preset (embedded model or real model) < row of algorithm/table.py < flag. resolve.py fills and checks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from grpo.algorithm.choices import PAIRED
from grpo.algorithm.row import Algorithm
from grpo.algorithm.table import ALGORITHMS
from grpo.flags import DataFlags, EngineFlags, VerifierFlags
from grpo.model.settings import LoraSettings, OptimizerSettings
from grpo.presets import EMBEDDED_MODEL
from grpo.run_flags import AlgorithmFlags, EvaluationFlags, RunFlags, StepFlags, TaskFlags, UpdateFlags


@dataclass(frozen=True, kw_only=True)
class Config(  # --help lists the last group first
    RunFlags,
    EvaluationFlags,
    VerifierFlags,
    EngineFlags,
    UpdateFlags,
    StepFlags,
    AlgorithmFlags,
    DataFlags,
    TaskFlags,
):
    """A minimal GRPO / Dr. GRPO reasoning trainer. With no flag: an embedded tiny model learns to add, on a CPU."""

    @property
    def embedded(self) -> bool:
        return self.model == str(EMBEDDED_MODEL)

    @property
    def run_folder(self) -> Path:
        return self.runs_dir / self.name

    @property
    def verifiers(self) -> tuple[str, ...]:
        """Those of the user, the first of which says what is correct, and those of the algorithm."""
        return (*self.reward, *self.penalties)

    @property
    def prompting(self) -> dict[str, Any]:
        """How a problem becomes a prompt, as `encode` takes it."""
        return {name: getattr(self, name) for name in ("template", "system", "chat_args")}

    @property
    def planned(self) -> bool:
        """Whether a plan of the memory is all that is asked for."""
        return self.plan or self.plan_for is not None

    @property
    def off_policy(self) -> bool:
        """Whether a step's later updates train another policy than the one that sampled."""
        return self.updates_per_step * self.epochs_per_step > 1

    @property
    def needs_old_logprobs(self) -> bool:
        """Whether the policy that sampled scores its responses first; else the ratio's denominator is the value
        itself."""
        return self.off_policy or self.max_kl > 0 or self.kl_in == "reward" or self.advantage in PAIRED

    @property
    def needs_reference(self) -> bool:
        return bool(self.kl_coef or self.kl_target or self.log_kl or self.advantage in PAIRED)

    @property
    def responses_per_step(self) -> int:
        """B of a rollout batch: P * G."""
        return self.problems_per_step * self.responses_per_problem

    @property
    def row(self) -> Algorithm:
        """The algorithm as one value: the row of the table with the flags applied."""
        cells = {field.name: getattr(self, field.name) for field in fields(Algorithm) if hasattr(self, field.name)}
        return replace(ALGORITHMS[self.algo], **cells)

    @property
    def optimizer_settings(self) -> OptimizerSettings:
        return OptimizerSettings(
            name=self.optimizer,
            learning_rate=self.learning_rate,
            betas=(self.adam_beta1, self.adam_beta2),
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            warmup_updates=self.warmup_updates,
            schedule=self.schedule,
            updates=self.steps * self.updates_per_step * self.epochs_per_step,
            seed=self.seed,
        )

    @property
    def critic_settings(self) -> OptimizerSettings:
        """Of the critic's own AdamW."""
        return replace(self.optimizer_settings, name="adamw", learning_rate=self.critic_learning_rate)

    @property
    def lora(self) -> LoraSettings | None:
        """The adapter that is trained; None where all weights are."""
        return None if self.lora_rank is None else LoraSettings(self.lora_rank, self.lora_alpha, self.lora_targets)

    def to_json(self) -> dict[str, Any]:
        """The resolved values, as config.json and wandb hold them."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
