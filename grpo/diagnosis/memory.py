"""Memory: what a run needs at its fullest stage, by the arithmetic of grpo/memory, against what is free. Bytes.

On a card it is the plan that the run itself begins with; on a CPU the same formulas, against the free memory of the
machine. With the model loaded, the largest micro-batch is rehearsed on a card, and measured (grpo/memory_rehearsal.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from grpo.card import Plan, load_of, others, widths_of
from grpo.config import Config
from grpo.diagnosis.findings import Finding, fault, not_checked, ok, warning
from grpo.memory.fit import MARGIN, left, savings
from grpo.memory.host_stages import host_kv_sequence, host_stages
from grpo.memory.model_shape import KNOWN, Shape, shape_of
from grpo.memory.stages import GIB, Load, stages, total
from grpo.memory.widths import Widths
from grpo.model.pretrained import PRECISIONS, load_config

CHECK = "memory"
CLOSE = 0.9
"""Share of a machine's free memory from which on a sum is too close to it: other programs want some, too."""
OF_A_CARD = ("--reference-device", "--memory-fraction", "--optimizer adamw_offload", "--precision")
"""What `others` names that saves nothing on a CPU, or is counted otherwise there."""


@dataclass(frozen=True)
class Place:
    """Where a run computes."""

    cuda: bool
    plan: Plan | None = None
    """Of the card; None on a CPU, and for a model whose memory is not planned."""
    free: int | None = None
    """Of a CPU's memory, before anything is loaded; None where it is not known."""


def place_of(device: str, plan: Plan | None) -> Place:
    """`device`: cpu or cuda."""
    if device == "cuda":
        return Place(True, plan)
    return Place(False, free=free_on_host(Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")))


def free_on_host(meminfo: Path, limit: Path) -> int | None:
    """MemAvailable of /proc/meminfo, or the limit of the container where that is lower; None on another system."""
    if not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limited = limit.read_text().strip() if limit.is_file() else "max"
    return free if limited == "max" else min(free, int(limited))


def memory_findings(config: Config, source: str, place: Place, engine: str) -> Iterator[Finding]:
    """The fullest stage against the free memory, and how many responses vLLM's KV cache holds.

    source: folder or name of the model. Raises: UserError where it has no config.
    """
    found = load_config(source, trust_remote_code=config.trust_remote_code)
    if found.model_type not in KNOWN:
        yield not_checked(CHECK, f"a model of type {found.model_type}: the formulas hold for {', '.join(KNOWN)}")
    elif not place.cuda:
        shape = shape_of(found, trust_remote_code=config.trust_remote_code)
        yield from host_findings(config, host_load(config, shape), place.free, engine)
    elif place.plan is not None:
        yield from card_findings(place.plan)


def card_findings(plan: Plan) -> Iterator[Finding]:
    """The plan of the card, its tightest stage first. Little is left where it is less than what the plan itself leaves
    where it picks the numbers."""
    load, free = plan.load, left(plan.load)
    stage = min(free, key=free.get)
    held = {row: size for row, size in stages(load)[stage].items() if row != "other programs"}
    found = f"{needed(load.shape, held, stage)} of a card; free: {shown(load.card - load.taken)}"
    saved = savings(load, others(plan.config, load))
    if free[stage] >= MARGIN * load.card:
        yield ok(CHECK, found)
    else:
        yield (fault if free[stage] < 0 else warning)(CHECK, found, advice(saved))
    if load.vllm:
        yield cache_finding(load.kv_cache, load.kv_sequence, "--memory-fraction")


def host_findings(config: Config, load: Load, free: int | None, engine: str) -> Iterator[Finding]:
    """On a CPU."""
    vllm_cache = config.kv_cache_gib * GIB if engine == "vllm" else None
    held = host_stages(load, vllm_cache)
    stage = max(held, key=lambda name: total(held[name]))
    need = total(held[stage])
    found = f"{needed(load.shape, held[stage], stage)} in memory"
    if free is None:
        yield not_checked(CHECK, f"{found}; how much is free is not known on this system")
        return
    found += f"; free: {shown(free)}"
    if need <= CLOSE * free:
        yield ok(CHECK, found)
    else:
        changes = {way: other for way, other in others(config, load).items() if not way.startswith(OF_A_CARD)}
        saved = {way: need - total(host_stages(other, vllm_cache)[stage]) for way, other in changes.items()}
        if vllm_cache is not None:
            saved["--engine hf, which has no weights of its own,"] = need - total(host_stages(load, None)[stage])
            saved["--kv-cache-gib, if it were half,"] = vllm_cache / 2
        yield (fault if need > free else warning)(CHECK, found, advice(saved))
    if vllm_cache is not None:
        yield cache_finding(vllm_cache, host_kv_sequence(load), "--kv-cache-gib")


def host_load(config: Config, shape: Shape) -> Load:
    """What a run asks of a CPU: all arithmetic is in the precision of the weights."""
    width = PRECISIONS[config.precision].itemsize
    widths: Widths = replace(
        widths_of(config),
        weights=width,
        gradient=width,
        compute=width,
        reference=width if config.needs_reference and config.lora is None else 0,
    )
    load = load_of(replace(config, engine="hf"), shape, card=0.0, taken=0.0)  # what vLLM takes is in host_stages
    return replace(load, widths=widths)


def cache_finding(room: float, one: float, flag: str) -> Finding:
    """How many responses of full length vLLM's KV cache holds; vLLM refuses to start where it does not hold one."""
    room = max(0.0, room)
    found = f"vLLM's KV cache, about {shown(room)}, holds {int(room // one):,} responses of full length"
    if room < one:
        return fault(CHECK, found, f"vLLM would refuse to start: raise {flag}, or lower --max-response-tokens.")
    return ok(CHECK, found)


def needed(shape: Shape, held: Mapping[str, float], stage: str) -> str:
    """How much, when, and of what."""
    listed = ", ".join(f"{row} {shown(size)}" for row, size in held.items() if size)
    return (
        f"{shape.parameters / 1e6:.1f}M parameters: a run needs about {shown(sum(held.values()))}, most in the stage "
        f"'{stage}' ({listed}),"
    )


def advice(saved: Mapping[str, float]) -> str:
    """What makes it smaller, with what each is worth; saved: way -> bytes."""
    largest = sorted((way for way in saved if saved[way] > 0), key=saved.get, reverse=True)
    ways = [f"{way} saves {shown(saved[way])}" for way in largest]
    return f"What helps: {'; '.join([*ways, 'a smaller --model'])}."


def shown(size: float) -> str:
    """Bytes as GiB, or as MiB where that is little."""
    return f"{size / GIB:.1f} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.1f} MiB"
