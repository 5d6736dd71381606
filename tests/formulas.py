"""The formulas once more, by another hand: one response at a time, scalars and plain loops, no padding, no batches.

test_policy.py holds the trainer's gradient against what torch differentiates of these. Nothing here imports grpo.
"""

import math

import torch


def advantages(name, rewards):
    """[[r, ...], ...] -> the same shape."""
    result = []
    centred_all = [r - sum(group) / len(group) for group in rewards for r in group]
    mean_all = sum(centred_all) / len(centred_all)
    batch_std = math.sqrt(sum((c - mean_all) ** 2 for c in centred_all) / (len(centred_all) - 1))
    for group in rewards:
        size, mean = len(group), sum(group) / len(group)
        std = math.sqrt(sum((r - mean) ** 2 for r in group) / (size - 1))
        result.append(
            [
                {
                    "raw": r,
                    "max_only": r if r == max(group) else 0.0,
                    "centered": r - mean,
                    "leave_one_out": r - (sum(group) - r) / (size - 1),
                    "group_normalized": (r - mean) / (std + 1e-4),
                    "batch_normalized": (r - mean) / (batch_std + 1e-4),
                }[name]
                for r in group
            ]
        )
    return result


def divisor(name, length, sequences, tokens, constant):
    """What a token loss of a response of `length` tokens is divided by."""
    return {"sequence_mean": sequences * length, "constant": sequences * constant, "token_mean": tokens}[name]


def response_loss(row, new, old, ref, sampler, advantage, entropy=None):
    """Sum of the token losses of one response; `new` is differentiated."""
    length = len(new)
    mean_difference = sum(new[t] - old[t] for t in range(length)) / length
    total = torch.zeros((), dtype=new.dtype)
    for t in range(length):
        token_ratio = torch.exp(new[t] - old[t])
        ratio = torch.exp(mean_difference) if row.ratio == "sequence" else token_ratio
        low, high = 1 - row.clip_low, 1 + row.clip_high
        if row.surrogate == "naive":
            gain = advantage * new[t]
        elif row.surrogate == "unclipped":
            gain = advantage * ratio
        elif row.surrogate == "cispo":
            gain = advantage * new[t] * min(ratio.item(), row.ratio_cap)
        elif advantage >= 0:  # a gain above the range earns nothing more
            gain = advantage * (ratio if ratio <= high else high)
        else:
            gain = advantage * (ratio if ratio >= low else low)
        importance = min(math.exp(float(old[t] - sampler[t])), row.importance_cap)
        d = new[t] - ref[t]
        k3 = torch.exp(-d) - 1 + d
        kl = {"k1": d, "k2": d * d / 2, "k3": k3, "k3_ratio": token_ratio * k3}[row.kl_estimator]
        total = total - importance * gain + (row.kl_coef * kl if row.kl_in == "loss" else 0)
        if entropy is not None:
            total = total - row.entropy_coef * entropy[t]
    return total
