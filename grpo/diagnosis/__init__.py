"""A run examined before it costs anything: findings, each with what to do about it.

One file a subject; all but rehearsal.py and weight_sync.py, which use the real engine, are functions from values to
findings. The order, and what depends on what, is in grpo/doctor.py.
"""
