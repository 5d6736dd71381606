"""`python -m grpo.verifiers`: try verifiers without a model."""

from grpo.verifiers.check import main

main()
