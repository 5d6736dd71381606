"""Comparisons -> pairs of responses as token ids: a group of two, the better one first.

Rollouts have the ids that were sampled. A text has those of its prompt under the template, and of the response with one
end of sequence, encoded apart and joined: no search for where the prompt ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from grpo.dpo_flags import Options
from grpo.errors import UserError
from grpo.problems.markers import marker_ids
from grpo.problems.preferences import Comparison, best_pairs
from grpo.problems.templates import prompt_encoder
from grpo.records import Group, Problem, Rollout

LONG_PROMPT = "with a prompt longer than --max-prompt-tokens"
LONG_RESPONSE = "with a response longer than --max-response-tokens"


def make_pairs(
    comparisons: Sequence[Comparison], tokenizer: PreTrainedTokenizerBase, options: Options
) -> tuple[list[Group], Counter[str]]:
    """The pairs, and how many were dropped for which reason. Raises: UserError where a text cannot be encoded."""
    encode = prompt_encoder(tokenizer, options.template, options.system, options.chat_args)
    end = (*marker_ids(tokenizer, options.template, options.chat_args), tokenizer.eos_token_id)[0]
    found, dropped = [], Counter()
    for comparison in comparisons:
        for better, worse in best_pairs(comparison, options.pairs_per_prompt, options.seed):
            pair = _pair(comparison, (better, worse), tokenizer, encode, end)
            if len(pair.problem.prompt_tokens) > options.max_prompt_tokens:
                dropped[LONG_PROMPT] += 1
            elif max(len(rollout.tokens) for rollout in pair.rollouts) > options.max_response_tokens:
                dropped[LONG_RESPONSE] += 1
            else:
                found.append(pair)
    return found, dropped


def _pair(
    comparison: Comparison,
    places: tuple[int, int],
    tokenizer: PreTrainedTokenizerBase,
    encode: Callable,
    end: int | None,
) -> Group:
    if comparison.group is not None:
        return Group(comparison.group.problem, tuple(comparison.group.rollouts[place] for place in places))
    if end is None:
        raise UserError("The tokenizer has no end of sequence, which a response of text must end in. Give it one.")
    rollouts = []
    for place in places:
        text = comparison.responses[place]
        ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        ids = ids if ids[-1:] == (end,) else (*ids, end)
        rollouts.append(Rollout(ids, (0.0,) * len(ids), text, truncated=False))
    return Group(Problem(comparison.prompt, tuple(encode(comparison.prompt)), {}), tuple(rollouts))
