"""The card of a run: what its flags come to in memory, what is picked where they are unset, and a refusal.

    python -m grpo.train --model NAME --plan                  # for the card that is here
    python -m grpo.train --model NAME --plan-for 24           # for a card of 24 GiB, on any machine

Nothing is loaded but the model's config. The arithmetic is that of grpo/memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from rich.console import Console

from grpo.algorithm.choices import WITH_CRITIC
from grpo.config import Config
from grpo.devices import torch_device
from grpo.engines.choose import choose_engine
from grpo.errors import UserError
from grpo.memory.adapter import Adapter, known
from grpo.memory.fit import fits, pick_concurrency, pick_memory_fraction, pick_micro_batch_tokens, savings
from grpo.memory.model_shape import KNOWN, Shape, critic_shape, shape_of
from grpo.memory.plan_table import notes, plan_table, verdict
from grpo.memory.stages import CONTEXT, GIB, Load
from grpo.memory.widths import STATE, Widths
from grpo.model.logprobs import chunk_elements
from grpo.model.lora import check_targets
from grpo.model.pretrained import load_config
from grpo.presets import WITHOUT_PLAN

ONE_PROCESS = ("--optimizer", "--precision", "--reference-device")
"""Changes that several processes refuse (resolve.check_ranks)."""
RANK = 16
"""Of the adapter that is suggested where all weights do not fit."""


@dataclass(frozen=True)
class Plan:
    """A config without gaps, and what it comes to on a card."""

    config: Config
    load: Load
    picked: tuple[str, ...]
    """Flags that were unset."""

    @property
    def fits(self) -> bool:
        return fits(self.load)

    @property
    def verdict(self) -> str:
        changes = others(self.config, self.load)
        return verdict(self.load, savings(self.load, changes), [way for way, other in changes.items() if fits(other)])

    def show(self, console: Console) -> None:
        """The table, and what is to be known of it."""
        parameters = self.load.shape.parameters / 1e9
        console.print(
            plan_table(
                self.load,
                f"{self.config.model}, {parameters:.2f}B parameters, on a card of {self.load.card / GIB:.1f} GiB, by "
                "arithmetic",
            )
        )
        for line in (*notes(self.load), *([f"picked: {' '.join(self.picked)}"] if self.picked else [])):
            console.print(line)


def settled(config: Config, ranks: int = 1, nodes: int = 1) -> tuple[Config, Plan | None]:
    """The config with its gaps filled, and its plan where it has a card. A model of an unknown kind has none, and gets
    what is usual.

    ranks: processes of the run, on so many machines. Raises: UserError for the plan of a card that is not there, and
    for --lora-targets that are not in the model.
    """
    if config.lora is not None:
        base = load_config(config.model, trust_remote_code=config.trust_remote_code)
        check_targets(base, config.lora, trust_remote_code=config.trust_remote_code)
    card = card_of(config)
    if card is None:
        return config, None
    found = load_config(source_of(config), trust_remote_code=config.trust_remote_code)
    if found.model_type not in KNOWN and not config.planned:
        usual = {name: value for name, value in WITHOUT_PLAN.items() if getattr(config, name) is None}
        return replace(config, **usual), None
    if config.planned and ranks == 1:
        ranks = config.plan_ranks
    shape = shape_of(found, trust_remote_code=config.trust_remote_code)
    plan = make_plan(config, shape, *card, ranks=ranks, shards=ranks // nodes)
    return plan.config, plan


def source_of(config: Config) -> str:
    """Where the model's config is: a run that goes on has it in each checkpoint, and its --model may be gone."""
    saved = sorted(config.run_folder.glob("checkpoint-*/config.json")) if config.resume else []
    return str(saved[-1].parent) if saved else config.model


def card_of(config: Config) -> tuple[float, float] | None:
    """Bytes of the card that is planned for, and how many of them others have taken; None for a run on a CPU.

    Raises: UserError for --plan without a card, and for a card without bfloat16.
    """
    if config.plan_for is not None:
        return config.plan_for * GIB, 0.0
    if torch_device(config) == "cuda":
        check_bfloat16()
        free, total = torch.cuda.mem_get_info()
        return total, max(0.0, total - free - CONTEXT)  # asking has already made a context of our own
    if config.plan:
        raise UserError(
            "--plan plans for the card of this machine, and torch sees none here. Name the size of one: --plan-for 24."
        )
    return None


def check_bfloat16() -> None:
    """Both the policy's forward pass and vLLM are in bfloat16 on a card. Raises: UserError for one that has none."""
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        major, minor = torch.cuda.get_device_capability()
        raise UserError(
            f"The card {torch.cuda.get_device_name()} has compute capability {major}.{minor}, and no arithmetic in "
            "bfloat16, in which the model is trained and sampled on a card: that takes 8.0 or more (A100, L4, L40S, "
            "RTX 30 and newer). Use such a card, or --device cpu with --engine hf for a small model."
        )


def make_plan(
    config: Config, shape: Shape, card: float, taken: float = 0.0, *, ranks: int = 1, shards: int = 1
) -> Plan:
    """Fill what is unset: the micro-batch by what the passes leave room for, vLLM's share, and how many responses it
    generates at once."""
    load = load_of(config, shape, card, taken, ranks=ranks, shards=shards)
    picked = {}
    if config.micro_batch_tokens is None:
        picked["micro_batch_tokens"] = pick_micro_batch_tokens(load)
        load = replace(load, micro_batch_tokens=picked["micro_batch_tokens"])
    if not load.vllm:
        picked |= {
            name: value for name, value in WITHOUT_PLAN.items() if getattr(config, name) is None and name not in picked
        }
    elif config.concurrency is None:
        picked["concurrency"] = pick_concurrency(with_share(config, load), asked_at_once(config, ranks))
        load = replace(load, generated_sequences=picked["concurrency"])
    if load.vllm and config.memory_fraction is None:
        load = with_share(config, load)
        picked["memory_fraction"] = load.memory_fraction
    flags = tuple(f"--{name.replace('_', '-')} {value}" for name, value in picked.items())
    return Plan(replace(config, **picked), load, flags)


def with_share(config: Config, load: Load) -> Load:
    """The load with vLLM's share picked, where it is unset."""
    return load if config.memory_fraction else replace(load, memory_fraction=pick_memory_fraction(load))


def asked_at_once(config: Config, ranks: int = 1) -> int:
    """The most responses that a step or an evaluation asks of one engine."""
    asked = max(config.responses_per_step, config.eval_problems * config.eval_responses)
    return -(-asked * config.tensor_parallel // ranks)


def load_of(config: Config, shape: Shape, card: float, taken: float, *, ranks: int = 1, shards: int = 1) -> Load:
    """What the config asks of a card; what is unset is at its usual value. The one place that knows flags and bytes."""
    elsewhere = config.plan_for is not None and config.engine == "auto"  # vllm will be installed where the card is
    vllm = elsewhere or choose_engine(config.engine)[0] == "vllm"
    usual = {name: getattr(config, name) or value for name, value in WITHOUT_PLAN.items()}
    return Load(
        shape=shape,
        widths=replace(widths_of(config, ranks), chunk=chunk_elements(card)),
        card=card,
        taken=taken,
        shards=shards,
        tensor_parallel=config.tensor_parallel,
        micro_batch_tokens=usual["micro_batch_tokens"],
        sequence=config.max_prompt_tokens + config.max_response_tokens,
        update_sequences=-(-config.responses_per_step // config.updates_per_step // ranks),
        generated_sequences=min(usual["concurrency"], asked_at_once(config, ranks)),
        recompute=config.gradient_checkpointing,
        memory_fraction=usual["memory_fraction"] if vllm else None,
        critic=critic_of(config, shape),
    )


def critic_of(config: Config, shape: Shape) -> Shape | None:
    """The shape of the critic, that of the policy's layers or of --critic; None for an algorithm without one."""
    if config.advantage not in WITH_CRITIC:
        return None
    if config.critic is None:
        return critic_shape(shape)
    return critic_shape(shape_of(load_config(config.critic, trust_remote_code=config.trust_remote_code)))


def widths_of(config: Config, ranks: int = 1) -> Widths:
    """Bytes a parameter on a card, as the flags have it; the reference is in bfloat16 there, and so is what LoRA leaves
    as it is, which is the reference too. The reference of several ranks is in float32, as their policy."""
    weights = 2 if config.precision == "bfloat16" else 4
    every = {"gradient": weights, "optimizer": STATE[config.optimizer]}
    every["pieces"] = config.row.of_tokens and config.loss_term is None and ranks == 1
    if config.lora is not None:
        adapter = Adapter(config.lora.rank, weights, known(config.lora.targets))
        return Widths(weights=2, adapter=adapter, **every)
    here = config.needs_reference and config.reference_device == "same"
    reference = 0 if not here else 2 if ranks == 1 else 4
    return Widths(weights=weights, reference=reference, **every)


def others(config: Config, load: Load) -> dict[str, Load]:
    """What could be changed -> the load that it comes to."""
    found = {}
    if not load.recompute:
        found["--gradient-checkpointing True"] = replace(load, recompute=True)
    if load.tokens > load.sequence:
        found[f"--micro-batch-tokens {load.sequence}"] = replace(load, micro_batch_tokens=load.sequence)
    for name, width in STATE.items():
        if width < load.widths.optimizer:
            found[f"--optimizer {name}"] = replace(load, widths=replace(load.widths, optimizer=width))
    if config.lora is None:
        adapted = replace(widths_of(replace(config, lora_rank=RANK)), chunk=load.widths.chunk)
        found[f"--lora-rank {RANK}"] = replace(load, widths=adapted)
    if load.widths.weights > 2:
        narrow = replace(load.widths, weights=2, gradient=2)
        found["--precision bfloat16"] = replace(load, widths=narrow)
    if load.widths.reference:
        without = replace(load.widths, reference=0)
        found["--reference-device cpu"] = replace(load, widths=without)
    if config.needs_reference and config.lora is None:
        without = replace(load.widths, reference=0)
        found["no reference (--kl-coef 0 --log-kl False)"] = replace(load, widths=without)
    if load.critic is not None:
        found["an --algo without a critic"] = replace(load, critic=None)
    if load.vllm:
        fraction = pick_memory_fraction(load)
        found[f"--memory-fraction {fraction}"] = replace(load, memory_fraction=fraction)
    elif load.generated_sequences > 1:
        fewer = load.generated_sequences // 2
        found[f"--concurrency {fewer}"] = replace(load, generated_sequences=fewer)
    if load.shards > 1:  # what several processes cannot do
        found = {name: other for name, other in found.items() if not name.startswith(ONE_PROCESS)}
    half = config.max_response_tokens // 2
    sequence = config.max_prompt_tokens + half
    found[f"--max-response-tokens {half} with --micro-batch-tokens {sequence}"] = replace(
        load, sequence=sequence, micro_batch_tokens=sequence
    )
    return found


def check_card(plan: Plan) -> None:
    """Raises: UserError for a run that cannot fit, before a model is loaded."""
    if not plan.fits:
        raise UserError(f"{plan.verdict} --plan shows the whole table, and --plan-for that of another card.")
