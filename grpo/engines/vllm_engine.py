"""vLLM in this process, on CPU and CUDA: every vLLM-version-specific line of the project. Written for vLLM 0.32.

Where each line comes from is said beside it, because a sampler that has drifted from its trainer fails in silence.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

# Read by vllm when it is imported. One process: the policy's tensors can be handed over without a copy through shared
# memory, and nothing outlives the run.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

import torch
from transformers import PreTrainedTokenizerBase

from grpo.collector import importing
from grpo.engines.free_memory import check_free_memory
from grpo.engines.held_back import held_back_stderr
from grpo.engines.protocol import OnResponse
from grpo.engines.seeds import response_seed
from grpo.model.policy import Policy
from grpo.out_of_memory import SHARE, out_of_memory
from grpo.records import Group, Problem, Rollout


def forget_shared_memory(rank: int) -> None:
    """Remove what a rank of an earlier job has left of the memory that vllm's ranks on a CPU share, and does not take
    over: its name does not say which job it is of. Who shares it already keeps it."""
    for left in Path("/dev/shm").glob(f"-tp:*-cpushm_{rank}"):
        left.unlink(missing_ok=True)


with held_back_stderr(), importing():
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.platforms import current_platform
    from vllm.sampling_params import RequestOutputKind

GIB = 2**30
WAKING = ("waking vLLM", SHARE)
"""An engine of which a part still sleeps is not made anew (revival.py): its memory is neither there nor free."""
CPU_BLOCK_TOKENS = 32
"""Tokens in a block of the KV cache on the CPU: a prompt shares its full blocks with its group."""
CPU_PASS_TOKENS = 4096
"""Most tokens of a pass on the CPU, as vllm has it by itself."""


class VLLMEngine:
    """One in-process vLLM engine. On CUDA, where it shares the card, it sleeps from `release` to the next `sync`."""

    def __init__(
        self,
        model: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        end_ids: Sequence[int],
        stop: Sequence[str] = (),
        max_tokens: int,
        max_sequences: int,
        memory_fraction: float = 0.4,
        kv_cache_gib: float = 0.5,
        head_dtype: str = "float32",
        shares_device: bool = True,
        reserved_bytes: int = 0,
        trust_remote_code: bool = False,
        tensor_parallel: int | None = None,
    ) -> None:
        """reserved_bytes: what the trainer has yet to take of the card, and still holds while this engine generates.

        tensor_parallel: of several processes that torchrun has started, and that have joined torch.distributed, how
        many hold one model among them; all processes make their engines at the same point. None: there is one.
        """
        self.tokenizer = tokenizer
        self.end_ids = list(end_ids)
        self.stop = list(stop)
        self.on_cuda = current_platform.is_cuda()
        self.precision = torch.bfloat16 if self.on_cuda else torch.float32
        self.sleeps = self.on_cuda and shares_device
        self.asleep = False
        self.passes = 0
        if self.on_cuda:
            torch.cuda.empty_cache()
            check_free_memory(*torch.cuda.mem_get_info(), fraction=memory_fraction, reserved=reserved_bytes)
            placed = {
                "dtype": "bfloat16",
                "hf_overrides": {"head_dtype": head_dtype},  # as the trainer's (model/head.py); ModelConfig.head_dtype
                "gpu_memory_utilization": memory_fraction,
                "enable_sleep_mode": self.sleeps,
            }
        else:
            # float32: at the sizes that train on a CPU bfloat16 is no faster, and costs parity with the trainer.
            placed = {
                "dtype": "float32",
                "kv_cache_memory_bytes": int(kv_cache_gib * GIB),
                "block_size": CPU_BLOCK_TOKENS,
                "enforce_eager": True,
                # A prompt that is cut between two passes has its seed's generator set back, which one on a CPU refuses
                # (v1/worker/gpu_model_runner.py: set_offset). So none is cut; each must then fit into a pass.
                "enable_chunked_prefill": False,
                "max_num_batched_tokens": max(CPU_PASS_TOKENS, max_tokens),
            }
        if tensor_parallel is not None:
            # Each process has an engine of its own in our process group, on the card of its LOCAL_RANK; vllm's own
            # launchers would take the first card in every one (v1/executor/uniproc_executor.py).
            placed |= {"distributed_executor_backend": "external_launcher", "tensor_parallel_size": tensor_parallel}
            if not self.on_cuda:
                forget_shared_memory(torch.distributed.get_rank())
        set_threads, threads = torch.set_num_threads, torch.get_num_threads()
        with held_back_stderr():
            self.llm = LLM(
                model,
                max_model_len=max_tokens,
                max_num_seqs=max_sequences,
                # The log-probability of the distribution that was sampled, after temperature; the default ignores it.
                logprobs_mode="processed_logprobs",
                # Else a model's generation_config.json brings its own top-p and repetition penalty into training.
                generation_config="vllm",
                enable_prefix_caching=True,
                disable_log_stats=True,
                trust_remote_code=trust_remote_code,
                **placed,
            )
        torch.set_num_threads = set_threads  # vllm's CPU worker replaces it by a function that does nothing
        torch.set_num_threads(threads)  # the one for CUDA leaves a single one (utils/torch_utils.py)
        self.engine = self.llm.llm_engine
        # A model that vllm builds without a head of its own (Gemma) refuses the tied head's name; every other needs it.
        (self.has_head,) = self.llm.apply_model(lambda built: hasattr(built, "lm_head"))

    def generate(
        self,
        problems: Sequence[Problem],
        group_size: int,
        *,
        temperature: float,
        max_tokens: int,
        seed: int,
        on_response: OnResponse | None = None,
        places: Sequence[int] | None = None,
    ) -> list[Group]:
        """See Engine.generate."""
        self.passes = 0
        if not problems:
            return []
        self._wake()
        # What an earlier call has left in it would change which tokens are computed together, and so how they round:
        # the same seed and weights must give the same responses to the last bit, whatever came before.
        self._reset_prefix_cache()
        requests: dict[str, tuple[int, int]] = {}
        rollouts: list[list[Rollout | None]] = [[None] * group_size for _ in problems]
        for p, problem in enumerate(problems):
            for g in range(group_size):
                # One request a response, so that each is handed on as it ends. n=G in one request costs the same.
                params = SamplingParams(
                    temperature=temperature,
                    max_tokens=max_tokens,
                    seed=response_seed(seed, places[p] if places else p, g),
                    stop_token_ids=self.end_ids,
                    stop=self.stop,
                    include_stop_str_in_output=True,
                    logprobs=0,  # the sampled token's alone
                    flat_logprobs=True,
                    detokenize=bool(self.stop),
                    output_kind=RequestOutputKind.FINAL_ONLY,
                )
                request = f"{p}-{g}"
                self.engine.add_request(request, {"prompt_token_ids": list(problem.prompt_tokens)}, params)
                requests[request] = (p, g)
        with self._own_generators(), self._eager(), self._aborting(requests):
            while self.engine.has_unfinished_requests():
                self.passes += 1
                for output in self.engine.step():
                    p, g = requests[output.request_id]
                    rollouts[p][g] = rollout = self._rollout(output.outputs[0])
                    if on_response is not None:
                        on_response(problems[p], rollout)
        return [Group(problem, tuple(row)) for problem, row in zip(problems, rollouts, strict=True)]

    def sync(self, policy: Policy) -> None:
        """See Engine.sync."""
        if self.asleep:
            torch.cuda.empty_cache()  # what the trainer's allocator keeps in reserve is vllm's to take
            with out_of_memory(*WAKING):
                # Weights first: the KV cache is not needed while they are copied, and the card may not hold both.
                self.llm.wake_up(tags=["weights"])
        # A live model's `load_weights` fails on the CPU, where linear weights are packed; this goes through unpacking.
        weights = ((name, tensor) for name, tensor in policy.weights() if self.has_head or name != "lm_head.weight")
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        if self.asleep:
            with out_of_memory(*WAKING):
                self._awake(self.llm.wake_up(tags=["kv_cache"]))
        # Not done by reload_weights: without it the next responses mix old keys and values into the new policy.
        self._reset_prefix_cache()

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """See Engine.score."""
        self._wake()
        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        prompts = [{"prompt_token_ids": list(sequence)} for sequence in sequences]
        with self._own_generators(), self._eager():
            outputs = self.llm.generate(prompts, params, use_tqdm=False)
        return [
            [scores[token].logprob for token, scores in zip(s[1:], output.prompt_logprobs[1:], strict=True)]
            for s, output in zip(sequences, outputs, strict=True)
        ]

    def release(self) -> None:
        """See Engine.release. Level 1 keeps the weights on the host: nothing is lost where no sync should follow."""
        if self.sleeps and not self.asleep:
            self.asleep = True  # also where a Ctrl-C comes half-way: waking takes what sleeps, and leaves the rest
            self.llm.sleep(level=1)

    @property
    def held_bytes(self) -> int:
        """See Engine.held_bytes. Of an engine that sleeps too: torch goes on counting memory that it has given back."""
        if not self.sleeps:
            return 0
        from vllm.device_allocator.cumem import CuMemAllocator

        return CuMemAllocator.get_instance().get_current_usage()

    def close(self) -> None:
        """See Engine.close. Another engine can then be made in this process."""
        with suppress(Exception):  # where a run ended because the card is full, it stays asleep, and CUDA complains of
            self._wake()  # memory that is freed twice; what ended the run is what must be said
        # vllm's own order of its end leaves a hook of torch.compile behind, and with it the weights, on CUDA for ever:
        # the hook is found through the model, which shutdown deletes (LLMEngine._finalizer, compilation/wrapper.py).
        if unhook := getattr(self.engine, "_finalizer", None):
            unhook()
        self.engine.engine_core.shutdown()
        del self.engine, self.llm
        cleanup_dist_env_and_memory()

    @contextmanager
    def _aborting(self, requests: dict[str, tuple[int, int]]) -> Iterator[None]:
        """Leave no request behind where generation is cut short: vllm would go on with it in the next call."""
        try:
            yield
        except BaseException:  # Ctrl-C too: a notebook goes on with this engine
            self.engine.abort_request(list(requests))
            raise

    def _reset_prefix_cache(self) -> None:
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vllm refused to reset its prefix cache: requests are still running")

    def _rollout(self, completion) -> Rollout:
        tokens = tuple(completion.token_ids)
        text = completion.text if self.stop else self.tokenizer.decode(tokens, skip_special_tokens=True)
        return Rollout(
            tokens=tokens,
            # flat_logprobs puts the sampled token first in each position's slice, and logprobs=0 asks for no other.
            logprobs=tuple(completion.logprobs.logprobs[start] for start in completion.logprobs.start_indices),
            text=text,
            truncated=completion.finish_reason == "length",
        )

    def _eager(self):
        # On the CPU vllm compiles small sampler functions at the first call, which costs more than it ever gains back.
        return nullcontext() if self.on_cuda else torch.compiler.set_stance("force_eager")

    def _own_generators(self):
        # vllm's CPU sampler draws from torch's global generator even where every request has a seed; that is put back,
        # so that the trainer's draws do not depend on vllm's.
        return torch.random.fork_rng(devices=[torch.cuda.current_device()] if self.on_cuda else [])

    def _wake(self) -> None:
        if self.asleep:
            torch.cuda.empty_cache()
            with out_of_memory(*WAKING):
                self._awake(self.llm.wake_up())

    def _awake(self, wholly: bool) -> None:
        """Where a part still sleeps, `step` would return nothing for ever, without a word."""
        if not wholly:
            raise RuntimeError("vllm woke up only in part: it would generate nothing, and say nothing")
        self.asleep = False
