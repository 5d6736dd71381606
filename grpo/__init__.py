"""A minimal GRPO / Dr. GRPO reasoning trainer with verifiable rewards. Start reading at grpo/train.py."""

import os

# Read once, when torch loads OpenMP. By default its idle threads spin, so that on a CPU the sampler, the trainer and
# the verifier processes starve one another: with both cores busy, small-model decoding becomes twenty times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
