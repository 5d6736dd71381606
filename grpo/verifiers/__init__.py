"""Verifiable rewards: rewards/*.py over the responses of a step, in worker processes, under limits.

Nothing is imported here: every worker process imports this package, and must not load torch.
"""
