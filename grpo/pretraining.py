"""PPO-ptx's pre-training term of a run: documents, of which each update imitates some (model/imitation.py)."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from grpo.config import Config
from grpo.model.batching import collate
from grpo.model.imitation import imitate
from grpo.model.policy import Policy
from grpo.problems.document_files import read_documents
from grpo.problems.documents import Documents, encode_documents
from grpo.problems.draw import draw
from grpo.problems.fingerprint import fingerprint
from grpo.problems.markers import marker_ids
from grpo.problems.templates import prompt_encoder


@dataclass(frozen=True)
class Pretraining:
    """Which documents an update imitates, a pure function of seed, step and update."""

    documents: Documents
    per_update: int
    updates: int
    """Of a step."""
    coef: float
    seed: int
    content: str = ""
    """A fingerprint of the documents as they are in their file."""

    def __str__(self) -> str:
        found = self.documents
        return (
            f"{self.per_update} of {len(found.groups)} documents an update ({found.dropped} dropped, too long or short)"
        )

    def imitate(self, policy: Policy, step: int, update: int) -> dict[str, float | None]:
        """The gradient of the term at update 0, 1, ... of a step. See `imitation.imitate`."""
        at = (step - 1) * self.updates + update + 1
        drawn = draw(self.documents.groups, self.per_update, at, f"{self.seed}/ptx")
        return imitate(policy, collate(drawn), self.coef)


def make_pretraining(config: Config, tokenizer: PreTrainedTokenizerBase) -> Pretraining | None:
    """None where there is no --ptx-data. Raises: UserError where nothing can be learnt from it."""
    if config.ptx_data is None:
        return None
    rows = read_documents(config.ptx_data)
    documents = encode_documents(
        rows,
        tokenizer,
        encode=prompt_encoder(tokenizer, **config.prompting),
        end=(*marker_ids(tokenizer, config.template, config.chat_args), tokenizer.eos_token_id)[0],
        most=config.max_prompt_tokens + config.max_response_tokens,
    )
    updates = config.updates_per_step * config.epochs_per_step
    return Pretraining(
        documents, config.ptx_per_update, updates, config.ptx_coef, config.seed, content=fingerprint(rows)
    )
