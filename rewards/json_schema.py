"""Structured output: 1.0 where the response's JSON is valid under the column `schema`, else 0.0.

The JSON is what the last `<answer>...</answer>` holds, or the last fenced block marked `json` there, or else the whole
response. It is strict JSON: no `NaN`, no comments, no text around it. The schema is an object or its JSON text, in any
draft that `jsonschema` knows (2020-12 where it names none). A `$ref` may point within the schema or to a published
draft; nothing is ever fetched from the network.

>>> schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
>>> reward('{"age": 41}', schema=schema)
1.0
>>> reward('{"age": "41"}', schema=schema)
0.0
>>> reward('He is 41: {"age": 41}', schema=schema)
0.0
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for
from jsonschema_specifications import REGISTRY

FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n", re.MULTILINE)


def reward(response: str, schema: dict[str, Any] | bool | str) -> float:
    """1.0 where the response holds valid JSON, else 0.0.

    Raises: ValueError or jsonschema.SchemaError where the schema itself is wrong, and
    referencing.exceptions.Unresolvable where it refers to something outside itself.
    """
    schema = json.loads(schema) if isinstance(schema, str) else schema
    kind = validator_for(schema, default=Draft202012Validator)
    kind.check_schema(schema)
    try:
        value = json.loads(_json_text(response), parse_constant=_refuse)
    except (ValueError, RecursionError):  # not JSON; nested beyond the parser's depth: a wrong answer either way
        return 0.0
    # The registry holds the published drafts and no way to retrieve another: jsonschema's own default would download.
    return float(kind(schema, registry=REGISTRY).is_valid(value))


def _json_text(response: str) -> str:
    end = response.rfind("</answer>")
    start = response.rfind("<answer>", 0, max(end, 0))
    text = response[start + len("<answer>") : end] if start >= 0 else response
    fences = list(FENCE.finditer(text + "\n"))
    for opening, closing in reversed(list(pairwise(fences))):
        if opening[1].lower() == "json" and not closing[1]:
            return text[opening.end() : closing.start()]
    return text


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
