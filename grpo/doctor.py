"""Find what is wrong with a run before it costs anything: `python -m grpo.doctor` with the flags of the run.

Nothing is trained, and nothing is written: versions, data, prompts, ends, gold answers, memory, the sync and a part of
a step are looked at, and each finding says what to do. Exit status: 0 no fault (there may be warnings), 1 a fault,
2 flags that do not go together, 130 interrupted.
"""

from __future__ import annotations

from grpo.doctor_flags import asked
from grpo.early import refuse_early
from grpo.unix import check_unix

if __name__ == "__main__":  # --help and refusals are there at once, before the imports below
    refuse_early(lambda: asked(None, __doc__), check_unix)

import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import transformers
from rich.console import Console

from grpo.card import settled
from grpo.config import Config
from grpo.devices import torch_device
from grpo.diagnosis.cost import cost_findings
from grpo.diagnosis.findings import Finding, exit_status, fault, guarded, not_checked, ok, show
from grpo.diagnosis.golds import gold_findings
from grpo.diagnosis.memory import Place, place_of
from grpo.diagnosis.rehearsal import gradient_findings, rehearse
from grpo.diagnosis.sampling import MANY_TRUNCATED, gap_findings, response_findings, reward_findings
from grpo.diagnosis.subject import Subject, examine_subject
from grpo.diagnosis.versions import version_findings
from grpo.diagnosis.weight_sync import sync_findings
from grpo.engines.choose import make_engine
from grpo.errors import UserError
from grpo.memory_rehearsal import asleep_bytes
from grpo.memory_rehearsal import rehearse as rehearse_largest
from grpo.model.checkpoint import checkpoints
from grpo.out_of_memory import OutOfMemory, out_of_memory
from grpo.outcomes import truncated
from grpo.policies import make_policy, make_reference, whole
from grpo.problems.markers import marker_ids, template_marker
from grpo.resolve import on_this_machine
from grpo.setup import engine_settings, make_probe, make_verifiers
from grpo.verifiers.verify import Verifiers

AT_WORK = "sync, sampled responses, gradient and cost"
"""What is checked with the model loaded."""


def examine(config: Config, place: Place) -> Iterator[Finding]:
    """Every finding as it is made, cheapest first; what is wrong with one part hides no other. `place`: for memory."""
    saved = list(checkpoints(config.run_folder).values()) if config.resume else []
    checkpoint = saved[-1] if saved else None
    source = whole(str(checkpoint or config.model), config)
    yield from version_findings()
    subject = yield from examine_subject(config, source, place)
    because = f"because of the fault above in: {', '.join(subject.lacking())}"
    if not subject.verifiers:
        yield not_checked("gold answers", because)
        yield not_checked(AT_WORK, because)
        return
    # However many calls fail, the doctor goes on: that they do is a finding.
    with make_verifiers(config.verifiers, replace(config, verifier_max_failures=1.0)) as verifiers:
        golds = gold_findings(verifiers, config.verifiers, subject.rows, data_flags(config))
        yield from guarded("gold answers", golds)
        if subject.lacking():
            yield not_checked(AT_WORK, because)
        else:
            yield from guarded("rehearsal", examine_model(config, subject, checkpoint, place, verifiers))


def examine_model(
    config: Config, subject: Subject, checkpoint: Path | None, place: Place, verifiers: Verifiers
) -> Iterator[Finding]:
    """What only the loaded model and the real engine show. Raises: UserError."""
    tokenizer = subject.tokenizer
    settings = engine_settings(
        config,
        stop=config.stop,
        markers=marker_ids(tokenizer, config.template, config.chat_args),
        max_prompt_tokens=config.max_prompt_tokens,
        max_response_tokens=config.max_response_tokens,
        sequences=max(config.responses_per_step, len(subject.held_out) * config.eval_responses),
    )
    try:
        with out_of_memory("the rehearsal", "a lower --micro-batch-tokens or --memory-fraction, or a smaller --model"):
            policy = make_policy(str(checkpoint or config.model), config)
            reference = make_reference(policy, config, checkpoint)
            if place.cuda:
                asleep = asleep_bytes(subject.engine)
                yield ok("memory", rehearse_largest(config, policy, reference, asleep=asleep).line(place.plan))
            engine = make_engine(subject.engine, config.model, tokenizer, settings, policy)
            probe = make_probe(config, policy, engine, tokenizer)
            yield from sync_findings(engine, policy, probe)
            rehearsal = rehearse(
                config,
                subject.problems,
                engine=engine,
                policy=policy,
                reference=reference,
                verifiers=verifiers,
                probe=probe,
            )
    except UserError:
        raise
    except OutOfMemory as error:
        yield fault("memory", str(error))
        return
    except Exception as error:  # an engine, a model's own code or a user's ingredient may raise anything
        traceback.print_exception(error)
        advice = "The run would end like this too. The error output has the traceback; --engine hf may do without."
        yield fault("engine", f"{type(error).__name__}: {error}", advice)
        return
    batch, groups, (_, rewards, total, _) = rehearsal.batch, rehearsal.scored.groups, rehearsal.scored
    yield from gap_findings(batch.sampler_logprobs[batch.mask], rehearsal.logprobs[batch.mask], probe.tolerance)
    marker = template_marker(tokenizer, config.template, config.chat_args)
    limits = dict(max_tokens=rehearsal.max_tokens, max_response_tokens=config.max_response_tokens)
    yield from response_findings(groups, tokenizer, subject.ends, marker=marker and marker.token, **limits)
    cut = rehearsal.max_tokens < config.max_response_tokens
    unfinished = cut and truncated(groups).float().mean().item() > MANY_TRUNCATED
    yield from reward_findings(rewards, total, unfinished=unfinished)
    yield from gradient_findings(rehearsal.grad_norm, uniform=not rehearsal.scored.informative.any())
    held_out = len(subject.held_out)
    yield from cost_findings(config, rehearsal.seconds, rehearsal.responses, held_out, rehearsal.max_tokens)


def data_flags(config: Config) -> str:
    """The data, as `python -m grpo.verifiers --data` takes it."""
    folder = f" --data-dir {config.data_dir}" if config.data_dir else ""
    return f"{config.data}{folder}{f' --gold {config.answer_column}' if config.answer_column != 'answer' else ''}"


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit status: 0 no fault, 1 a fault, 2 flags that do not go together, 130 interrupted."""
    transformers.utils.logging.disable_progress_bar()
    try:
        config, plan = settled(on_this_machine(asked(arguments, __doc__)))
        console = Console(width=None if sys.stdout.isatty() else 120)
        return exit_status(show(examine(config, place_of(torch_device(config), plan)), console))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
