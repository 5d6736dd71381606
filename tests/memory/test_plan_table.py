"""A plan as text."""

import io
from dataclasses import replace

from real_shapes import load_of
from rich.console import Console

from grpo.memory.plan_table import notes, plan_table, verdict
from grpo.memory.stages import GIB


def printed(load):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(plan_table(load, "a title"))
    return console.export_text()


def row(text, name):
    return next(line.split()[len(name.split()) :] for line in text.splitlines() if line.strip().startswith(name))


def test_the_table_adds_up():
    text = printed(load_of("Qwen2.5-1.5B", 79))
    names = ("weights", "optimizer", "gradients", "activations", "head", "copies of weights", "CUDA, gaps")
    update = [float(row(text, name)[{1: 0, 2: 1, 4: 2}[len(row(text, name))]]) for name in names]
    assert abs(sum(update) - float(row(text, "sum")[2])) < 0.4
    assert abs(float(row(text, "sum")[2]) + float(row(text, "left")[2]) - 79) < 0.11
    assert "reference" not in text and "other programs" not in text  # there are none


def test_activations_are_named_both_ways_and_the_cache_in_responses():
    activations, cache = notes(load_of("Qwen2.5-1.5B", 79))
    assert "16,384 positions: 5.2 GiB with recomputed layers, 51.0 GiB without" in activations
    assert cache.startswith("vLLM's KV cache holds 289 responses of the full 4,024 tokens at a time; up to 256")


def test_what_fits_names_the_tightest_stage():
    text = verdict(load_of("Qwen2.5-7B", 139), {})
    assert text == "It fits: at least 5.7 GiB of the card are left, in the stage 'generate'."


def test_what_does_not_fit_says_what_is_lacking_and_what_helps():
    load = load_of("Qwen2.5-1.5B", 23.5)
    text = verdict(load, {"--something 1": 2 * GIB, "--other 2": GIB})
    assert text.startswith(
        "It does not fit a card of 23.5 GiB: in the stage 'update' 4.8 GiB are lacking (GiB: optimizer"
    )
    assert "In GiB, --something 1 saves 2.0; --other 2 saves 1.0. None of these is enough alone." in text
    assert "\n" not in text
    text = verdict(load, {"--something 1": 2 * GIB, "--other 2": GIB}, ["--other 2"])
    assert "--something 1 saves 2.0; --other 2 saves 1.0, and then it fits. Otherwise use" in text
    share = replace(load_of("Qwen2.5-1.5B", 79), memory_fraction=0.05)
    assert "leaves its KV cache no room for a response of full length" in verdict(share, {})
