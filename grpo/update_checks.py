"""Flags of the update that do not go together: of an adapter, a critic, documents, a trust region, PPO's penalty."""

from __future__ import annotations

from grpo.algorithm.choices import WITH_CRITIC
from grpo.config import Config
from grpo.errors import UserError
from grpo.flags import flag
from grpo.model.model_folder import check_model_files
from grpo.presets import preset_of
from grpo.problems.document_files import read_documents
from grpo.run_flags import UpdateFlags


def check_lora(config: Config) -> None:
    """The flags of an adapter are there for one. Raises: UserError."""
    others = {"--lora-alpha": config.lora_alpha, "--lora-targets": config.lora_targets}
    if config.lora_rank is None and (given := [name for name, value in others.items() if value is not None]):
        raise UserError(
            f"{' and '.join(given)} without --lora-rank: all weights would be trained, and there is no adapter. Give a "
            "rank, such as --lora-rank 16, or leave it out."
        )
    if config.lora_rank is not None and config.reference_device == "cpu":
        raise UserError(
            "--reference-device cpu with --lora-rank: the reference is the model with its adapter switched off. There "
            "is no second model that could rest on the host, and no memory to save. Leave --reference-device out."
        )


def check_critic(config: Config) -> None:
    """Its flags are there for one. Raises: UserError."""
    names = ("critic", "critic_learning_rate", "critic_warmup")
    if config.advantage not in WITH_CRITIC and (given := [flag(name) for name in names if getattr(config, name)]):
        raise UserError(
            f"{' and '.join(given)} with --advantage {config.advantage}: there is no critic. It belongs to the "
            "advantage gae, as in --algo ppo. Leave it out, or add that."
        )
    if config.critic_warmup >= config.steps:
        raise UserError(
            f"--critic-warmup {config.critic_warmup} of --steps {config.steps}: the policy would never be trained. "
            "Lower it, or raise --steps."
        )
    if config.critic is not None and not config.resume:  # a resumed run has its own
        check_model_files(config.critic)


def check_ptx(config: Config) -> None:
    """Documents have a weight, and a weight documents that can be read. Raises: UserError."""
    given = [flag(name) for name in ("ptx_coef", "ptx_per_update") if getattr(config, name) is not None]
    if config.ptx_data is None and given:
        raise UserError(
            f"{' and '.join(given)} without --ptx-data: there are no documents to imitate. Name a file of them, or "
            "leave it out."
        )
    if config.ptx_data is None:
        return
    if config.ptx_coef is None:
        raise UserError(
            f"--ptx-data {config.ptx_data} without --ptx-coef: its weight beside the rewards has no usual value. Give "
            "one, such as --ptx-coef 0.05, and compare policy/ptx_grad_norm with policy/grad_norm."
        )
    read_documents(config.ptx_data)


def check_trust_region(config: Config) -> None:
    """What a step of its own kind cannot be combined with. Raises: UserError."""
    refused = {
        "--updates-per-step or --epochs-per-step above 1": config.off_policy,
        "--lora-rank": config.lora_rank is not None,
        "--precision bfloat16": config.precision == "bfloat16",
        f"--optimizer {config.optimizer}": config.optimizer != "adamw",
        f"--schedule {config.schedule}": config.schedule != "constant",
        "--compile": config.compile,
        "--ptx-data": config.ptx_data is not None,
        f"--warmup-updates {config.warmup_updates}": config.warmup_updates > 0,
        f"--max-grad-norm {config.max_grad_norm:g}": config.max_grad_norm != UpdateFlags.max_grad_norm,
        f"--weight-decay {config.weight_decay:g}": config.weight_decay != UpdateFlags.weight_decay,
        f"--adam-beta1 {config.adam_beta1:g}": config.adam_beta1 != UpdateFlags.adam_beta1,
        f"--adam-beta2 {config.adam_beta2:g}": config.adam_beta2 != UpdateFlags.adam_beta2,
    }
    usual = preset_of(config.model)["learning_rate"]
    if config.lora_rank is None:  # which sets a rate of its own
        refused[f"--learning-rate {config.learning_rate:g}"] = config.learning_rate != usual
    if config.max_kl and (given := [name for name, is_given in refused.items() if is_given]):
        raise UserError(
            f"--max-kl {config.max_kl:g} with {' and '.join(given)}: a trust region makes one step of its own length "
            "on all weights, in float32, and no optimizer takes part. Leave that out, or use --max-kl 0."
        )


def check_old_kl(config: Config) -> None:
    """PPO's penalty needs a second update, and its target a weight to start from. Raises: UserError."""
    if config.old_kl_coef and not config.off_policy:
        raise UserError(
            f"--old-kl-coef {config.old_kl_coef} weighs the KL to the policy that sampled, which is 0 with one update "
            "a step. Raise --updates-per-step or --epochs-per-step, or leave it out."
        )
    if config.old_kl_target is not None and not (config.old_kl_target > 0 and config.old_kl_coef):
        raise UserError(
            f"--old-kl-target {config.old_kl_target} adapts the weight of the KL to the policy that sampled, so it "
            f"must be more than 0 and needs an --old-kl-coef to start from (now {config.old_kl_coef})."
        )
