"""Stub, replaced by merge."""

STOPS = ("reward_collapse", "uniform_groups", "kl_runaway", "entropy_collapse", "length_limit", "engine_gap")


class Guards:
    def __init__(self, rows, stop_on=()):
        pass

    def look(self, row):
        return []
