"""TRL's side in benchmark.py: a short run of its GRPOTrainer on a shape's work. Prints one JSON line, as ours does.

    python scripts/benchmark_trl.py FOLDER S1 '{"vllm": true, "correction": true}'

Written for TRL 1.16. TRL's own settings stay as they are, but for these: no bfloat16, no gradient checkpointing, and a
constant learning rate, as on the other side; as few passes an update as memory allows. On a CPU its vLLM gets what ours
gets (float32, KV cache, blocks, no compilation), because TRL passes nothing of it on.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as this project sets it; without it both would run in slow motion
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import benchmark_shapes as work_of
from benchmark_ours import helpers_gib, result
from benchmark_shapes import BETAS, CLIP, KL_WEIGHT, KV_CACHE_GIB, SHAPES, WARM_UP, Shape

OF_STAGE = {
    "vLLM.generate": "generate",
    "transformers.generate": "generate",
    "_calculate_rewards": "verify",
    "sync_weights": "sync",
    "_prepare_inputs": "prepare",
}
"""TRL's name for a block that it times -> ours. `prepare` holds the three others, and the passes before the update."""


def settings(shape: Shape, folder: Path, steps: int, *, vllm: bool, correction: bool, cuda: bool):
    """TRL's GRPOConfig."""
    from trl import GRPOConfig

    sampling = {"ignore_eos": True} if vllm else {"min_new_tokens": shape.tokens}
    engine = dict(use_vllm=True, vllm_mode="colocate", vllm_max_model_length=shape.positions) if vllm else {}
    return GRPOConfig(
        output_dir=str(folder / "trl"), max_steps=steps, seed=0,
        per_device_train_batch_size=shape.rows_of_a_pass,
        gradient_accumulation_steps=shape.sequences // shape.rows_of_a_pass,
        num_generations=shape.responses, max_completion_length=shape.tokens, temperature=1.0,
        generation_kwargs=sampling, loss_type="grpo", beta=KL_WEIGHT, epsilon=CLIP, num_iterations=1,
        vllm_importance_sampling_correction=correction,
        learning_rate=work_of.LEARNING_RATE, lr_scheduler_type="constant", adam_beta1=BETAS[0], adam_beta2=BETAS[1],
        weight_decay=0.0, max_grad_norm=work_of.MAX_GRAD_NORM, gradient_checkpointing=False,
        bf16=cuda, use_cpu=not cuda, dataloader_pin_memory=cuda,
        logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True, **engine,
    )  # fmt: skip


def place_vllm_on_cpu() -> None:
    """Give TRL's vLLM what ours has on a CPU, and keep it from packing the weights.

    TRL syncs by `load_weights` on the live model. vLLM's CPU build packs linear weights by oneDNN and drops the
    originals, after which that fails; without the packing it multiplies by torch.
    """
    from trl.generation import vllm_generation
    from vllm import _custom_ops

    _custom_ops._supports_onednn = False
    vllm_generation.LLM = partial(
        vllm_generation.LLM, dtype="float32", kv_cache_memory_bytes=int(KV_CACHE_GIB * 2**30), block_size=32,
        enforce_eager=True,
    )  # fmt: skip


def hashed(completions, **_) -> list[float]:
    """The reward, as TRL asks for it."""
    return [work_of.reward(text) for text in completions]


def time_blocks(seconds: dict[str, float]) -> None:
    """Add up the seconds of TRL's own timers, which it would send to wandb, by stage."""
    import torch
    from trl.extras.profiling import ProfilingContext

    def log(context, duration: float) -> None:
        block = context.name.partition(".")[2]
        if block in OF_STAGE:
            seconds[OF_STAGE[block]] += duration
        elif block == "_get_per_token_logps_and_entropies" and not torch.is_grad_enabled():
            seconds["passes before the update"] += duration

    ProfilingContext._log_metrics = log


def main(folder: Path, name: str, options: dict) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOTrainer

    shape, cuda, vllm = SHAPES[name], torch.cuda.is_available(), options["vllm"]
    steps = WARM_UP + (options.get("steps") or shape.steps)
    if vllm and not cuda:
        place_vllm_on_cpu()
    seconds: dict[str, float] = defaultdict(float)
    time_blocks(seconds)
    lengths = {"responses": set(), "prompt_tokens": set(), "response_tokens": set()}
    uniform, gaps, ends, begins, counts = [], [0.0], [], [], {"updates": 0}

    class Trainer(GRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            made = super()._generate_and_score_completions(inputs)
            lengths["responses"].add(len(made["prompt_mask"]))
            lengths["prompt_tokens"] |= set(made["prompt_mask"].sum(1).tolist())
            lengths["response_tokens"] |= set(made["completion_mask"].sum(1).tolist())
            metrics = self._metrics["train"]
            uniform.append(metrics["frac_reward_zero_std"][-1])
            gaps.extend(metrics.get("sampling/sampling_logp_difference/mean", [])[-1:])
            return made

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__) -> None:
            begins.append(time.perf_counter())

        def on_optimizer_step(self, *_, **__) -> None:
            counts["updates"] += 1

        def on_step_end(self, *_, **__) -> None:
            ends.append(time.perf_counter())
            counts.setdefault("first", time.time())
            if len(ends) == WARM_UP:
                seconds.clear()

    trainer = Trainer(
        model=str(folder / "model"),
        reward_funcs=hashed,
        args=settings(shape, folder, steps, vllm=vllm, correction=options.get("correction", True), cuda=cuda),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in work_of.prompts()]),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        callbacks=[Clock()],
    )
    before = trainer.model.base_model.norm.weight.detach().clone()
    trainer.train()
    after = trainer.accelerator.unwrap_model(trainer.model).base_model.norm.weight
    measured = steps - WARM_UP
    step = (ends[-1] - ends[WARM_UP - 1]) / measured
    parts = {stage: value / measured for stage, value in seconds.items()}
    loading = sum(begin - end for end, begin in zip(ends, begins[1:], strict=False)) / measured  # of the next prompts
    stages = {stage: parts.get(stage, 0.0) for stage in ("generate", "verify", "sync")}
    passes = parts.get("passes before the update", 0.0)
    stages["update"] = step - loading - parts["prepare"] + passes
    work = {"steps": trainer.state.global_step, "updates": counts["updates"]}
    work |= {name: sorted(found) for name, found in lengths.items()}
    work |= {"uniform_groups": sum(uniform) / len(uniform), "weights_moved": bool((after != before).any())}
    work |= {"engine_gap": max(gaps)}
    side = "trl-vllm" if vllm else "trl-generate"
    more = dict(helpers_gib=helpers_gib(), work=work, sampler="vllm" if vllm else "transformers")
    print(json.dumps(result(side, shape, step, stages, counts["first"], **more)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
