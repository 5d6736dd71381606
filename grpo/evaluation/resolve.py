"""The options of an evaluation -> those that can run here: the device, and the lengths that the models allow."""

from __future__ import annotations

import math
from dataclasses import replace

from grpo.devices import check_device, torch_device
from grpo.evaluation.options import Options, completed
from grpo.flags import check_head
from grpo.model.pretrained import load_config, load_tokenizer, position_limit


def resolve(options: Options) -> Options:
    """Fill what is unset but `engine`, and check all but data and weights. Raises: UserError."""
    options = completed(options)
    check_device(options.device)
    check_head(options, torch_device(options))
    positions = math.inf
    for model in options.model:
        load_tokenizer(model, trust_remote_code=options.trust_remote_code)  # says what is wrong with it
        config = load_config(model, trust_remote_code=options.trust_remote_code)
        positions = min(positions, position_limit(config))
    prompt = options.max_prompt_tokens or min(1024, positions // 4)
    response = options.max_response_tokens or min(3000, max(1, positions - prompt))
    return replace(options, max_prompt_tokens=int(prompt), max_response_tokens=int(response))
