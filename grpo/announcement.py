"""What a run says of itself before it begins."""

from __future__ import annotations

from grpo.config import Config
from grpo.inputs import Inputs
from grpo.model.policy import Policy
from grpo.model.ranks import Ranks
from grpo.pretraining import Pretraining
from grpo.verifiers.scale import scale_words


def announcement(
    config: Config, inputs: Inputs, pretraining: Pretraining | None, policy: Policy, engine: str, ranks: Ranks
) -> str:
    """What is about to run, how large a step is, and how to go on from the embedded model to a real one."""
    parameters = sum(parameter.numel() for parameter in policy.model.parameters())
    lora = sum(parameter.numel() for parameter in policy.model.parameters() if parameter.requires_grad)
    trained = "" if config.lora is None else f", a LoRA adapter of rank {config.lora_rank} with {lora / 1e6:.1f}M"
    name = f"the embedded tiny model ({config.model})" if config.embedded else config.model
    sequences = config.responses_per_step
    updates = config.updates_per_step * config.epochs_per_step
    place = str(policy.device) if ranks.size == 1 else f"{ranks.size} x {policy.device.type}"
    place += f" of {ranks.nodes} machines" if ranks.nodes > 1 else ""
    lines = [
        f"{config.algo} trains {name}, {parameters / 1e6:.1f}M parameters{trained}, on {place}; sampler: {engine}",
        f"data: {config.data}, {len(inputs.problems)} problems ({inputs.dropped} dropped, longer than "
        f"{config.max_prompt_tokens} tokens), {inputs.held_out_words}; reward: {' + '.join(config.verifiers)}",
        f"a step: {config.problems_per_step} problems x {config.responses_per_problem} responses = {sequences} "
        f"responses of at most {config.max_response_tokens} tokens, {updates} update(s) of "
        f"{sequences // config.updates_per_step} responses; {config.steps} steps",
        f"written to: {config.run_folder}",
    ]
    lines += scale_words(config.verifiers, config.truncated, config.correct_at)
    if inputs.kept:
        lines.insert(2, f"--keep-rate: {inputs.kept}")
    if pretraining is not None:
        lines.insert(2, f"beside: {config.ptx_data}, {pretraining}")
    if config.embedded:
        lines.append(
            "next, a real model on a GPU: python -m grpo.train --algo dr_grpo --model Qwen/Qwen2.5-Math-1.5B "
            "--data math12k --eval-data math500 --template qwen_math"
        )
    shared = {repr(p.prompt) for p in inputs.problems} & {repr(p.prompt) for p in inputs.held_out}
    if shared:
        lines.append(f"warning: {len(shared)} held-out problems are also trained on: the evaluation is contaminated")
    return "\n".join(lines)
