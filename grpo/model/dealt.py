"""A model that one rank reads -> each rank's part of it, without a copy for each rank in the memory of the host.

    model = dealt(made, ranks, device="cuda")   # made(device): the model there; on "meta", without its numbers

Every rank makes the model on torch's meta device, where tensors have a shape and no memory, and shards it. Rank 0 makes
it once more on its host, and sends tensor after tensor, of which each rank keeps its part. So the whole model is in
memory once in a job, and any other rank has its part and one tensor.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from grpo.errors import UserError
from grpo.model.logprobs import token_logprobs
from grpo.model.ranks import Ranks
from grpo.model.shard import Pass, shard

SAVED_BESIDE = ("generation_config", "_weight_conversions")
"""What loading alone gives a model, and save_pretrained writes, or needs for the names of the file's tensors."""


def dealt(
    made: Callable[[str], PreTrainedModel],
    ranks: Ranks,
    *,
    device: str,
    computes: Pass = token_logprobs,
    narrow: bool | None = None,
) -> PreTrainedModel:
    """The model on the device: of one rank as it was made, of several sharded. computes, narrow: as `shard` has them.

    Raises: UserError, also what `made` raises on rank 0.
    """
    if ranks.size == 1:
        return made(device)
    with ranks.together():
        source = made("cpu") if ranks.writes else None
    model = made("meta")
    with ranks.together():
        if source is not None:
            check_alike(source, model)
    shard(model, ranks, computes=computes, narrow=narrow, device=device)
    model.to_empty(device=device)  # makes two tensors of a tied one, of which one would lose its gradient
    model.tie_weights()
    _send(source, model)
    if source is not None:
        vars(model).update({name: value for name, value in vars(source).items() if name in SAVED_BESIDE})
    return model


def check_alike(source: PreTrainedModel, model: PreTrainedModel) -> None:
    """Raises: UserError where one has tensors that the other lacks, or ties those that the other does not."""
    differ = sorted(set(_tensors(source)) ^ set(_tensors(model)))
    if differ:
        raise UserError(
            f"The weights of this model are not what its config.json describes: they differ in {', '.join(differ[:5])}"
            ". If that is the output head, correct tie_word_embeddings in config.json. One process, without torchrun, "
            "trains it as it is."
        )


@torch.no_grad()
def _send(source: PreTrainedModel | None, model: PreTrainedModel) -> None:
    """The numbers of rank 0's source into the parts of all ranks. What has been sent is given back."""
    import torch.distributed as dist
    from torch.distributed.tensor import DTensor, distribute_tensor

    given = {} if source is None else _tensors(source)
    for name, part in _tensors(model).items():
        if source is None:
            full = torch.empty(part.shape, dtype=part.dtype, device=part.device)
        else:
            full = given[name].detach().to(part.device, part.dtype).contiguous()
            given[name].data = torch.empty(0, dtype=given[name].dtype)
        dist.broadcast(full, src=0)
        if isinstance(part, DTensor):
            full = distribute_tensor(full, part.device_mesh, part.placements, src_data_rank=None)
        part.copy_(full)


def _tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """All that has numbers: parameters, a tied one once, and buffers, also those that no file holds, such as the
    frequencies of the positions."""
    return dict(model.named_parameters()) | dict(model.named_buffers())
