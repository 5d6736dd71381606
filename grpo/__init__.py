"""A minimal GRPO / Dr. GRPO reasoning trainer with verifiable rewards. Start reading at grpo/train.py."""

import logging
import os

# Read once, when torch loads OpenMP. By default its idle threads spin, so that on a CPU the sampler, the trainer and
# the verifier processes starve one another: with both cores busy, small-model decoding becomes twenty times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# transformers imports torchao (--optimizer adamw_8bit) wherever it is installed, and that says at each start what the
# machine lacks for parts of it that are not used here.
for name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(name).setLevel(logging.ERROR)
