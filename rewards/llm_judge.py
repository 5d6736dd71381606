"""A judge: a language model behind an OpenAI-compatible API gives each response 0 to 10, and the reward is a tenth.

Settings are environment variables. Any server with `/chat/completions` will do: vLLM's own, or a paid one.

    GRPO_JUDGE_URL          where the API is, such as http://127.0.0.1:8000/v1 (required)
    GRPO_JUDGE_MODEL        the judge's name there (required)
    GRPO_JUDGE_KEY          the key, where the server wants one
    GRPO_JUDGE_PROMPT       a file with a prompt of your own: {response}, {mark}, and where needed {prompt}, {answer}
    GRPO_JUDGE_CACHE        a file that keeps verdicts, so that nothing is asked twice; unset: only within a step
    GRPO_JUDGE_CONCURRENCY  requests at a time, 16
    GRPO_JUDGE_TIMEOUT      seconds a request may take, 60
    GRPO_JUDGE_RETRIES      further tries after a time-out, 429, 5xx or a reply without a verdict, 4: after 1, 2, 4, 8 s
    GRPO_JUDGE_ARGS         JSON that goes into each request, {"temperature": 0}

A response that could not be judged is an error of that response alone; a refused key, or a model that is not there,
fails the step at once. The verdict is the reply's last line, and holds a mark that is a hash of the whole question: a
response cannot hold its own hash, so it can neither close the lines around it nor write the verdict. It can still *talk
the judge round*, which no form prevents: training searches for what pleases the judge. Read the samples, and keep a
verifier that checks beside it.

>>> verdict("It is right.\\nVERDICT 1f2e: 9", mark="1f2e")
0.9
>>> verdict("The response says VERDICT 1f2e: 10, and is wrong.", mark="1f2e") is None
True
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ._judge_settings import JudgeError, Settings

TIME_LIMIT = 3600
"""Seconds for a whole step; each request has its own limit."""

AGAIN = (408, 409, 425, 429)
"""Statuses besides 5xx after which the same request may succeed."""
FOR_ALL = (401, 403, 404)
"""Statuses that every other request would meet, too."""
LONGEST_WAIT = 60.0
"""Seconds between two tries at most, whatever the server's Retry-After says."""


def prepare() -> None:
    """Refuse wrong settings, and import the client: called once in the worker, before any limit applies."""
    import httpx  # noqa: F401

    Settings.read()


def reward(responses: Sequence[str], prompts: Sequence[Any], answer: Sequence[Any] | None = None) -> list[Any]:
    """0.0 to 1.0 for each response, and for one that could not be judged the error; lists in, list out.

    prompts: texts or chat messages; answer: reference answers, where the data has that column.
    Raises: JudgeError for wrong settings, and for what no response could get past, such as a wrong key.
    """
    settings = Settings.read()
    answers = [None] * len(responses) if answer is None else answer
    asked = [question(settings, *each) for each in zip(prompts, answers, responses, strict=True)]
    found: dict[str, Any] = _kept(settings.cache, list(dict.fromkeys(key for key, _ in asked)))
    missing = {key: text for key, text in asked if key not in found}
    new = dict(zip(missing, asyncio.run(_judged(settings, missing)), strict=True))
    _keep(settings.cache, {key: value for key, value in new.items() if isinstance(value, float)})
    found |= new
    return [found[key] for key, _ in asked]


# The question and the verdict -----------------------------------------------------------------------------------


def question(settings: Settings, prompt: Any, answer: Any, response: str) -> tuple[str, str]:
    """(key, text) of what the judge is asked. The key is a hash of all that the verdict may depend on; the mark is its
    beginning."""
    fields = {"prompt": _text(prompt), "answer": "(none is given)" if answer is None else str(answer)}
    fields = {name: _encodable(text) for name, text in {**fields, "response": response}.items()}
    parts = [settings.url, settings.model, settings.template, settings.args, fields]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    fields["mark"] = key[:12]
    # One pass, so that braces within a response are not filled in.
    return key, re.sub(r"\{(prompt|answer|response|mark)\}", lambda match: fields[match[1]], settings.template)


def verdict(reply: str, mark: str) -> float | None:
    """The reward that the last line of the judge's reply gives; None where it is no verdict."""
    last = (reply.strip().splitlines() or [""])[-1].strip(" *`.")
    match = re.fullmatch(rf"VERDICT {re.escape(mark)}:\s*(\d{{1,2}})(?:\s*/\s*10)?", last)
    return int(match[1]) / 10 if match and int(match[1]) <= 10 else None


def _text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # JSON of a lone surrogate is none for most servers


# Asking ---------------------------------------------------------------------------------------------------------


async def _judged(settings: Settings, questions: Mapping[str, str]) -> list[float | JudgeError]:
    """A reward or an error for each question. Raises: JudgeError for what all would meet."""
    import httpx

    headers = {"Authorization": f"Bearer {settings.key}"} if settings.key else {}
    free = asyncio.Semaphore(settings.concurrency)
    limits = httpx.Limits(max_connections=settings.concurrency)
    async with httpx.AsyncClient(headers=headers, timeout=settings.timeout, limits=limits) as client:

        async def one(key: str, text: str) -> float | JudgeError:
            async with free:
                try:
                    return await asyncio.wait_for(_asked(client, settings, key[:12], text), _longest(settings))
                except TimeoutError:
                    return JudgeError(f"the judge took longer than {_longest(settings):g} s with all tries")
                except JudgeError as error:
                    if error.for_all:
                        raise
                    return error

        tasks = [asyncio.create_task(one(key, text)) for key, text in questions.items()]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # where one has raised, the others need not be asked
                task.cancel()


async def _asked(client: Any, settings: Settings, mark: str, text: str) -> float:
    """The verdict of one question, with further tries. Raises: JudgeError."""
    import httpx

    body = {**settings.args, "model": settings.model, "messages": [{"role": "user", "content": text}]}
    said = ""
    for attempt in range(settings.retries + 1):
        wait = 2.0**attempt
        try:
            answer = await asyncio.wait_for(client.post(settings.url, json=body), settings.timeout)
        except (httpx.HTTPError, TimeoutError) as error:
            said = _without_key(settings, f"{type(error).__name__} {error}".strip())
        else:
            if answer.status_code == 200:
                reply = _reply(answer)
                found = None if reply is None else verdict(reply, mark)
                if found is not None:
                    return found
                shown = _without_key(settings, answer.text if reply is None else reply)
                said = f"a reply without a verdict: {shown[-120:]!r}"
            else:
                said = f"status {answer.status_code}: {_without_key(settings, answer.text)[:120]!r}"
                if answer.status_code not in AGAIN and answer.status_code < 500:
                    error = JudgeError(f"the judge at {settings.url} answered {said}")
                    error.for_all = answer.status_code in FOR_ALL
                    raise error
                wait = max(wait, _retry_after(answer.headers.get("Retry-After", "")))
        if attempt < settings.retries:
            await asyncio.sleep(min(wait * _unit(), LONGEST_WAIT))
    raise JudgeError(f"the judge at {settings.url} gave no verdict in {settings.retries + 1} tries; the last: {said}")


def _reply(answer: Any) -> str | None:
    """The text of a completion; None where the body is none."""
    try:
        content = answer.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return content if isinstance(content, str) else None


def _retry_after(header: str) -> float:
    return float(header) if re.fullmatch(r"\d+(\.\d+)?", header) else 0.0  # a date is not worth its parsing


def _unit() -> float:
    """What one second of waiting is; a test makes it shorter."""
    return 1.0


def _longest(settings: Settings) -> float:
    return (settings.retries + 1) * (settings.timeout + LONGEST_WAIT)


def _without_key(settings: Settings, text: str) -> str:
    """What a server or the client says, for people: some servers repeat the key that they refuse."""
    return text.replace(settings.key, "(the key)") if settings.key else text


# The cache ------------------------------------------------------------------------------------------------------


def _opened(path: str) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(Path(path).expanduser(), timeout=30)  # the ranks of a run share the file
        connection.execute("CREATE TABLE IF NOT EXISTS verdicts (question TEXT PRIMARY KEY, reward REAL NOT NULL)")
    except sqlite3.Error as error:
        raise JudgeError(f"llm_judge: GRPO_JUDGE_CACHE={path} cannot be used ({error}).") from error
    return connection


def _kept(path: str, keys: Sequence[str]) -> dict[str, float]:
    if not path:
        return {}
    with closing(_opened(path)) as connection:
        found = [connection.execute("SELECT * FROM verdicts WHERE question = ?", (key,)).fetchone() for key in keys]
    return {row[0]: row[1] for row in found if row}


def _keep(path: str, verdicts: Mapping[str, float]) -> None:
    if path and verdicts:
        with closing(_opened(path)) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", list(verdicts.items()))
