"""Held-out problems -> responses, verified -> accuracy, pass@k, maj@k and lengths.

Training and `python -m grpo.evaluate` share it: responses.py generates, measures.py says what the results come to.
"""
