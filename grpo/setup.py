"""The parts of a run, made from the config: cheapest first, so that bad input fails before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from grpo.algorithm.ingredients import Advantage, Aggregation, load_advantage, load_aggregation, load_loss_term
from grpo.algorithm.kl_weight import KLCoefficient, OldKLCoefficient
from grpo.algorithm.objective import LossTerm
from grpo.announcement import announcement
from grpo.card import Plan
from grpo.config import Config
from grpo.devices import torch_device
from grpo.engines.choose import EngineSettings, choose_engine, make_engine
from grpo.engines.protocol import Engine
from grpo.engines.revival import Revival
from grpo.engines.shared import SharedEngine
from grpo.engines.sync import TOLERANCE, SyncProbe
from grpo.errors import UserError
from grpo.files import read_json
from grpo.flags import EngineFlags, VerifierFlags
from grpo.folders import locked
from grpo.inputs import load_inputs
from grpo.keeper import Keeper, newest_whole
from grpo.logs.guards import Guards
from grpo.logs.logger import Logger, SilentLogger
from grpo.memory_rehearsal import asleep_bytes, rehearse
from grpo.model.checkpoint import Restored, Trained, restore, step_of
from grpo.model.compiled import check_compile
from grpo.model.lora_policy import WithoutAdapter
from grpo.model.policy import Policy, Reference
from grpo.model.ranks import Ranks
from grpo.model.scalar_model import ScalarModel
from grpo.model.settings import check_optimizer
from grpo.out_of_memory import out_of_memory
from grpo.policies import check_critic, check_trust_region, make_critic, make_policy, make_reference, whole
from grpo.pretraining import Pretraining, make_pretraining
from grpo.problems.lengths import EarlierLengths
from grpo.problems.markers import marker_ids
from grpo.records import Problem
from grpo.resume import words
from grpo.trained_on import check_unchanged, trained_on
from grpo.verifiers.shared import SharedVerifiers
from grpo.verifiers.verify import Verifiers


@dataclass(frozen=True)
class Parts:
    """What the loop uses."""

    problems: list[Problem]
    held_out: dict[str, list[Problem]]
    tokenizer: PreTrainedTokenizerBase
    verifiers: Verifiers | SharedVerifiers
    policy: Policy
    reference: Reference | WithoutAdapter | None
    critic: ScalarModel | None
    documents: Pretraining | None
    advantage: Advantage
    aggregation: Aggregation
    loss_term: LossTerm | None
    kl_coef: KLCoefficient
    old_kl_coef: OldKLCoefficient
    lengths: EarlierLengths
    engine: Engine
    probe: SyncProbe
    logger: Logger
    guards: Guards
    keeper: Keeper
    first_step: int
    ranks: Ranks


@contextmanager
def make_parts(config: Config, plan: Plan | None = None, ranks: Ranks | None = None) -> Iterator[Parts]:
    """Everything the loop uses; closed at the end, however it ends.

    plan: what is said beside the rehearsal; ranks: this process among those of the run, each of which makes its own.
    Raises: UserError before a model is loaded, OutOfMemory after that.
    """
    ranks = ranks or Ranks()
    if not config.resume:
        with _make_parts(config, plan, None, [], {}, ranks) as parts, held(config, ranks):
            yield parts
        return
    with held(config, ranks):  # before anything of another process could be mended
        with ranks.together():
            found = resuming(config) if ranks.writes else None
        checkpoint, said, before = ranks.told(found)
        with _make_parts(config, plan, checkpoint, said, before, ranks) as parts:
            yield parts


@contextmanager
def held(config: Config, ranks: Ranks) -> Iterator[None]:
    """The run's folder, kept to this run."""
    with ExitStack() as stack:
        with ranks.together():
            if ranks.writes:
                stack.enter_context(locked(config.run_folder))
        yield


@contextmanager
def _make_parts(
    config: Config, plan: Plan | None, checkpoint: Path | None, said: list[str], before: dict[str, str], ranks: Ranks
) -> Iterator[Parts]:
    with ranks.together():
        engine_name, engine_reason = choose_engine(config.engine)
        check_optimizer(config.optimizer, torch_device(config))
        if config.compile:
            check_compile(engine_name)
        check_critic(config)
        check_trust_region(config)
    source = str(checkpoint or config.model)
    with ranks.together():  # what one process fetches from the hub, the others of its machine find there
        inputs = load_inputs(config, whole(source, config)) if ranks.first_here else None
    with ranks.together():
        inputs = inputs or load_inputs(config, whole(source, config))
        documents = make_pretraining(config, inputs.tokenizer)
        content = trained_on(config, inputs.problems, documents)
        check_unchanged(config, before, content)
        verifiers = make_verifiers(config.verifiers, config)
    with verifiers:  # its processes start while the model loads
        policy = make_policy(source, config, ranks)
        reference = make_reference(policy, config, checkpoint)
        trained = Trained(
            policy,
            KLCoefficient(config.kl_coef, config.kl_target, config.kl_horizon),
            OldKLCoefficient(config.old_kl_coef, config.old_kl_target),
            lengths=EarlierLengths(inputs.problems, waiting=ranks.most(config.responses_per_step) > config.concurrency),
            critic=make_critic(config, checkpoint, inputs.tokenizer.pad_token_id, ranks),
        )
        with out_of_memory("loading the optimizer's state", "a larger card, or --reference-device cpu"):
            restored = restore(checkpoint, trained) if checkpoint else Restored(step=0, wandb_id=None)
        with ranks.together():
            logger = make_logger(config, restored, ranks, content)
        with logger, ExitStack() as stack:
            sampler = f"{engine_name} ({engine_reason})"
            for line in [announcement(config, inputs, documents, policy, sampler, ranks), *said]:
                logger.say(line)
            policy.say = logger.say
            for other in (reference, trained.critic):
                if other is not None:
                    other.say = logger.say
            if on_card(policy):  # before the engine starts, which would not be asleep
                rehearsed = rehearse(config, policy, reference, trained.critic, asleep=asleep_bytes(engine_name))
                logger.say(rehearsed.line(plan))
            settings = engine_settings(
                config,
                stop=config.stop,
                markers=marker_ids(inputs.tokenizer, config.template, config.chat_args),
                max_prompt_tokens=config.max_prompt_tokens,
                max_response_tokens=config.max_response_tokens,
                sequences=config.tensor_parallel * ranks.most(asked_at_once(config, len(inputs.held_out))),
            )
            if ranks.size > 1:
                settings = replace(settings, tensor_parallel=config.tensor_parallel)
            engine: Engine = Revival(
                lambda: make_engine(
                    # A checkpoint is removed when newer ones are there; the first sync brings the weights in any case.
                    engine_name,
                    whole(str(checkpoint) if checkpoint and checkpoint.is_dir() else config.model, config),
                    inputs.tokenizer,
                    settings,
                    policy,
                ),
                say=logger.say,
                once=ranks.size == 1,
            )
            of_all = verifiers
            if ranks.size == 1:
                stack.callback(engine.close)  # of several, vllm would end torch.distributed while others use it
            else:
                engine, of_all = SharedEngine(engine, ranks, config.tensor_parallel), SharedVerifiers(verifiers, ranks)
            yield Parts(
                problems=inputs.problems,
                held_out=inputs.held_out_sets,
                tokenizer=inputs.tokenizer,
                verifiers=of_all,
                policy=policy,
                reference=reference,
                critic=trained.critic,
                documents=documents,
                advantage=load_advantage(config.advantage),
                aggregation=load_aggregation(config.aggregation, config.loss_constant),
                loss_term=load_loss_term(config.loss_term),
                kl_coef=trained.kl_coef,
                old_kl_coef=trained.old_kl_coef,
                lengths=trained.lengths,
                engine=engine,
                probe=make_probe(config, policy, engine, inputs.tokenizer),
                logger=logger,
                guards=Guards(logger.rows, config.stop_on),
                keeper=Keeper(config, trained, inputs.tokenizer, logger, done=restored.step),
                first_step=restored.step + 1,
                ranks=ranks,
            )


def make_logger(config: Config, restored: Restored, ranks: Ranks, content: dict[str, str]) -> Logger:
    """One rank writes. content: what is trained on, as fingerprints."""
    if not ranks.writes:
        return SilentLogger(config.run_folder, first_step=restored.step + 1)
    return Logger(
        config.run_folder,
        steps=config.steps,
        first_step=restored.step + 1,
        config=config.to_json() | {"trained_on": content},
        wandb_mode=config.wandb,
        project=config.wandb_project,
        group=config.wandb_group,
        wandb_id=restored.wandb_id,
        log_to=config.log_to,
    )


def resuming(config: Config) -> tuple[Path | None, list[str], dict[str, str]]:
    """The checkpoint that a resumed run goes on from, None for its beginning, what is to be said of it, and what it was
    trained on."""
    before = read_json(config.run_folder / "config.json", "Begin a new run without --resume, under another --name.")
    checkpoint, said = newest_whole(config.run_folder)
    if checkpoint and config.steps < step_of(checkpoint):
        raise UserError(
            f"--steps {config.steps}, but the run {config.name} has done {step_of(checkpoint)}. Its model after them "
            f"is {checkpoint}."
        )
    return checkpoint, [*said, *words(before, config)], before.get("trained_on") or {}


def make_verifiers(specs: tuple[str, ...], flags: VerifierFlags) -> Verifiers:
    """The verifiers' processes, under the limits of the flags."""
    return Verifiers(
        specs,
        workers=flags.verifier_workers,
        time_limit=flags.verifier_time_limit,
        memory_limit=flags.verifier_memory_limit,
        max_failure_share=flags.verifier_max_failures,
        correct_at=flags.correct_at,
    )


def asked_at_once(config: Config, held_out: int) -> int:
    """The most responses that a step or an evaluation asks for."""
    return max(config.responses_per_step, held_out * config.eval_responses)


def engine_settings(
    flags: EngineFlags,
    *,
    stop: tuple[str, ...],
    max_prompt_tokens: int,
    max_response_tokens: int,
    sequences: int,
    markers: tuple[int, ...] = (),
) -> EngineSettings:
    """What an engine is made with."""
    return EngineSettings(
        max_prompt_tokens=max_prompt_tokens,
        max_response_tokens=max_response_tokens,
        sequences=min(flags.concurrency, sequences),
        stop=stop,
        markers=markers,
        memory_fraction=flags.memory_fraction,
        kv_cache_gib=flags.kv_cache_gib,
        head_dtype=flags.head_dtype,
        trust_remote_code=flags.trust_remote_code,
    )


def on_card(policy: Policy) -> bool:
    """Whether the largest micro-batch is rehearsed: on a CPU memory is seldom scarce, and a pass takes long."""
    return policy.device.type == "cuda"


def make_probe(config: Config, policy: Policy, engine: Engine, tokenizer: PreTrainedTokenizerBase) -> SyncProbe:
    """The fixed probe of the weight sync, from ids that stand for text. The coarser of the two precisions counts."""
    special = set(tokenizer.all_special_ids)
    return SyncProbe(
        [i for i in range(min(len(tokenizer), policy.model.config.vocab_size)) if i not in special],
        max_tokens=config.max_prompt_tokens + config.max_response_tokens,
        temperature=config.temperature,
        tolerance=config.sync_tolerance or max(TOLERANCE[policy.precision], TOLERANCE[engine.precision]),
    )
