"""Comparisons of responses -> a reward model, or a policy: what the commands reward_model and dpo are made of."""
