"""The policy of a run and its frozen reference, made from the config.

policy = make_policy(source, config)                  # source: --model, or a checkpoint
reference = make_reference(policy, config, None)      # of a run that begins
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from transformers import PreTrainedModel

from grpo.algorithm.choices import WITH_CRITIC
from grpo.config import Config
from grpo.devices import torch_device
from grpo.errors import UserError
from grpo.model.compiled import compile_layers
from grpo.model.dealt import dealt
from grpo.model.head import HEAD_DTYPES
from grpo.model.lora import add_adapter, load_adapter
from grpo.model.lora_policy import LoraPolicy, WithoutAdapter
from grpo.model.policy import Policy, Reference
from grpo.model.pretrained import PRECISIONS, load_config, load_model
from grpo.model.ranks import Ranks
from grpo.model.recompute import recompute_layers
from grpo.model.scalar_model import ScalarModel, check_scalar, load_scalar_model, make_scalar_model, token_values
from grpo.model.trust_region import TrustRegionPolicy, check_size
from grpo.out_of_memory import NO_REFERENCE, out_of_memory


@out_of_memory("loading the model", "--precision bfloat16, or a smaller --model")
def make_policy(source: str, config: Config, ranks: Ranks | None = None) -> Policy:
    """The model of `source` with its optimizer; of LoRA the --model, with the adapter of `source` if that is one. Of
    several ranks each gets its part."""
    ranks = ranks or Ranks()

    def made(device: str) -> PreTrainedModel:
        model = load(whole(source, config), config, device)
        if config.lora is not None:
            add_adapter(model, config.lora, base=config.model, dtype=PRECISIONS[config.precision], seed=config.seed)
            if source != config.model and device != "meta":
                load_adapter(model, Path(source))
        if config.gradient_checkpointing:
            recompute_layers(model)
        if config.compile:
            compile_layers(model)
        return model

    kind = LoraPolicy if config.lora is not None else TrustRegionPolicy if config.max_kl else Policy
    return kind(
        dealt(made, ranks, device=torch_device(config)),
        temperature=config.temperature,
        micro_batch_tokens=config.micro_batch_tokens,
        optimizer=config.optimizer_settings,
        train_entropy=config.entropy_coef > 0,
        head_dtype=HEAD_DTYPES[config.head_dtype],
        ranks=ranks,
    )


def whole(source: str, config: Config) -> str:
    """Where the config, the tokenizer and the base of `source` are: a checkpoint of LoRA holds the adapter alone."""
    return source if config.lora is None else config.model


@out_of_memory("loading the reference", NO_REFERENCE)
def make_reference(policy: Policy, config: Config, checkpoint: Path | None) -> Reference | WithoutAdapter | None:
    """The frozen starting model; None where no term asks for it. A run that goes on from a checkpoint loads it anew,
    and so do several ranks, whose policy is in parts by now."""
    if not config.needs_reference:
        return None
    if isinstance(policy, LoraPolicy):
        return WithoutAdapter(policy)
    if checkpoint is None and policy.ranks.size == 1:
        reference = policy.frozen_copy()
    else:
        model = dealt(partial(load, config.model, config), policy.ranks, device=torch_device(config))
        settings = (config.temperature, config.micro_batch_tokens, HEAD_DTYPES[config.head_dtype], policy.ranks)
        reference = Reference(model, *settings)
    if config.compile:
        compile_layers(reference.model)
    if policy.device.type == "cuda" and policy.ranks.size == 1:  # where its forward pass is bfloat16
        reference.keep_in_bfloat16()
    if config.reference_device == "cpu":
        reference.rest_on_host()
    return reference


def check_trust_region(config: Config) -> None:
    """Raises: UserError, before a model is loaded, for one that is too large for a trust region."""
    if config.max_kl:
        check_size(load(config.model, config, "meta"))


def check_critic(config: Config) -> None:
    """Raises: UserError, before a model is loaded, for a --critic that is no model of one number over its tokens."""
    if config.critic is None or config.resume:  # a resumed run has its own
        return
    own = load_config(config.model, trust_remote_code=config.trust_remote_code).get_text_config()
    found = check_scalar(config.critic, trust_remote_code=config.trust_remote_code).get_text_config()
    if found.vocab_size != own.vocab_size:
        raise UserError(
            f"--critic {config.critic} knows {found.vocab_size:,} tokens, and --model {config.model} "
            f"{own.vocab_size:,}: a critic reads the policy's tokens. Train one from that model: "
            f"python -m grpo.reward_model --model {config.model}."
        )


@out_of_memory("loading the critic", "a smaller --critic, or an --algo without one")
def make_critic(
    config: Config, checkpoint: Path | None, pad_id: int | None, ranks: Ranks | None = None
) -> ScalarModel | None:
    """The critic with its optimizer; None for an algorithm without. A new one has a head of zeros, so that the first
    advantages are the rewards to go; a --critic keeps its head. Of several ranks each gets its part."""
    if config.advantage not in WITH_CRITIC:
        return None
    ranks = ranks or Ranks()

    def made(device: str) -> PreTrainedModel:
        placed = {"device": device, "trust_remote_code": config.trust_remote_code}
        if checkpoint is not None or config.critic is not None:
            model = load_scalar_model(str(checkpoint / "critic") if checkpoint else config.critic, **placed)
        else:
            model = make_scalar_model(config.model, pad_id=pad_id, **placed)
            model.score.weight.data.zero_()
        if config.gradient_checkpointing:
            recompute_layers(model)
        return model

    model = dealt(made, ranks, device=torch_device(config), computes=token_values)
    return ScalarModel(model, config.critic_settings, config.micro_batch_tokens, ranks)


def load(source: str, config: Config, device: str) -> PreTrainedModel:
    """The model of `source` on a device, in the precision of the run, where what is frozen on a card is in bfloat16."""
    return load_model(
        source,
        device=device,
        trust_remote_code=config.trust_remote_code,
        precision="bfloat16" if config.lora and torch_device(config) == "cuda" else config.precision,
    )
