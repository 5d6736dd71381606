"""The formulas once more, by another hand: one response at a time, scalars and plain loops, no padding, no batches.

test_policy.py holds the trainer's gradient against what torch differentiates of these. Nothing here imports grpo.
"""

import math

import torch


def advantages(name, rewards, lengths=None, log_ratios=None, beta=0.1):
    """[[r, ...], ...] -> the same shape; lengths, of the same shape, are 1 where they are not given, log_ratios 0."""
    if name == "best_worst":
        log_ratios = log_ratios or [[0.0] * len(group) for group in rewards]
        return [best_worst(*group, beta) for group in zip(rewards, log_ratios, strict=True)]
    result = []
    lengths = lengths or [[1] * len(group) for group in rewards]
    flat = [r for group in rewards for r in group]
    raw_std = math.sqrt(sum((r - sum(flat) / len(flat)) ** 2 for r in flat) / (len(flat) - 1))
    centred_all = [r - sum(group) / len(group) for group in rewards for r in group]
    mean_all = sum(centred_all) / len(centred_all)
    batch_std = math.sqrt(sum((c - mean_all) ** 2 for c in centred_all) / (len(centred_all) - 1))
    for group, tokens in zip(rewards, lengths, strict=True):
        size, mean = len(group), sum(group) / len(group)
        baseline = sum(n * r for n, r in zip(tokens, group, strict=True)) / sum(tokens)
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
                    "batch_scaled": (r - mean) / (raw_std + 1e-4),
                    "mean_normalized": (r - mean) / mean if mean > 0 else 0.0,
                    "optimal_baseline": r - baseline,
                }[name]
                for r in group
            ]
        )
    return result


def best_worst(group, log_ratios, beta):
    """The first of the best against the last of the worst, by DPO's slope."""
    found = [0.0] * len(group)
    if len(set(group)) > 1:
        best = group.index(max(group))
        worst = max(i for i, r in enumerate(group) if r == min(group))
        pull = beta / (1 + math.exp(beta * (log_ratios[best] - log_ratios[worst])))
        found[best], found[worst] = pull, -pull
    return found


def divisor(name, length, sequences, tokens, constant, problems=1, problem_tokens=None):
    """What a token loss of a response of `length` tokens is divided by; the last two of the problems and of its own."""
    return {
        "sequence_mean": sequences * length,
        "constant": sequences * constant,
        "token_mean": tokens,
        "prompt_mean": problems * (problem_tokens or tokens),
    }[name]


def response_loss(row, new, old, ref, sampler, advantage, entropy=None):
    """Sum of the token losses of one response; `new` is differentiated."""
    length = len(new)
    sum_difference = sum(new[t] - old[t] for t in range(length))
    kept = 0.0
    for t in range(length):  # of the geometric mean: too far up counts no more where that is good, and down where bad
        difference = new[t] - old[t]
        too_far = difference > row.clip_high if advantage > 0 else difference < -row.clip_low
        kept = kept + ((row.clip_high if advantage > 0 else -row.clip_low) if too_far else difference)
    total = torch.zeros((), dtype=new.dtype)
    for t in range(length):
        token_ratio = torch.exp(new[t] - old[t])
        ratio = {"token": token_ratio, "sequence": torch.exp(sum_difference / length), "product": sum_difference.exp()}
        ratio = ratio[row.ratio]
        low, high = 1 - row.clip_low, 1 + row.clip_high
        if row.surrogate == "naive":
            gain = advantage * new[t]
        elif row.surrogate == "unclipped":
            gain = advantage * ratio
        elif row.surrogate == "cispo":
            gain = advantage * new[t] * min(ratio.item(), row.ratio_cap)
        elif row.surrogate == "geometric":
            gain = advantage * torch.exp(kept / length)
        elif row.surrogate == "soft_gate":
            tau = row.gate_positive if advantage > 0 else row.gate_negative
            gain = advantage * 4 / tau / (1 + torch.exp(-tau * (ratio - 1)))
        elif advantage >= 0:  # a gain above the range earns nothing more
            gain = advantage * (ratio if ratio <= high else high)
        elif row.dual_clip and ratio > row.dual_clip:
            gain = advantage * row.dual_clip
        else:
            gain = advantage * (ratio if ratio >= low else low)
        importance = 1.0 if row.importance == "none" else min(math.exp(float(old[t] - sampler[t])), 2.0)
        d = new[t] - ref[t]
        k3 = torch.exp(-d) - 1 + d
        kl = {"k1": d, "k2": d * d / 2, "k3": k3, "k3_ratio": token_ratio * k3}[row.kl_estimator]
        total = total - importance * gain + (row.kl_coef * kl if row.kl_in == "loss" else 0)
        total = total + row.old_kl_coef * (token_ratio - 1 - (new[t] - old[t]))
        if entropy is not None:
            total = total - row.entropy_coef * entropy[t]
    return total
