r"""Code: 1.0 where the response's last Python block passes every one of the row's `tests`, else 0.0.

`tests` is source with `assert` statements (or a list of such sources), run after the block in one process, or a list of
`{"input": ..., "output": ...}`, for each of which the block is run as a program and its standard output compared, but
for white space at the ends of lines and of the text. Only the standard library can be imported.

**On by explicit choice only**: nothing runs unless the environment holds `GRPO_ALLOW_CODE=1`. The code then runs in a
process that has locked itself in (`_sandbox.py`): no network, no other process, no file outside a scratch folder
but Python's own library, limits on time, memory, output and disk. Where the kernel does not offer all of that (Linux
5.13 with Landlock and seccomp), the verifier raises an error, and the code does not run.

Passing without solving: leaving early (`sys.exit(0)`, `os._exit(0)`) or printing "OK" fails, because a pass is a secret
that the process is handed after the code has run. For `assert EXPRESSION == LITERAL` outside `if` and `try`, and for
input-output pairs, the expected value never enters the process and the comparison is made here, so that an object that
equals everything fails too. Other assertions are decided where the response's code lives; a response that digs the
secret out of its own process, or redefines a function that the assertion calls, passes those.

>>> response = "Here it is:\n```python\ndef double(x):\n    return 2 * x\n```"
>>> reward(response, tests="assert double(4) == 8\nassert double('ab') == 'abab'")
1.0
>>> reward(response, tests=["assert double(4) == 9"])
0.0
>>> reward("```python\nprint(2 * int(input()))\n```", tests=[{"input": "4\n", "output": "8\n"}])
1.0
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

STARTS_PROCESSES = True
"""Asks the workers for leave to: the sandbox is a process."""
SANDBOX = Path(__file__).with_name("_sandbox.py")
PYTHON_OPTIONS = ("-P", "-s", "-S", "-B", "-X", "utf8")
FILE_BYTES = 1 << 20
"""The most that the code may print, and the size of any one file it writes."""
SCRATCH_BYTES, SCRATCH_FILES = 64 << 20, 1000
"""The most that its scratch folder may hold together."""
START_SECONDS = 1.0
"""More than the sandbox takes to start on a busy machine."""
FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n", re.MULTILINE)


def reward(response: str, tests: str | Sequence[Any], seconds: float = 4.0, memory_mb: int = 512) -> float:
    """1.0 where all tests pass, else 0.0.

    seconds: wall-clock time for all tests of the row together. Keep it below the trainer's own limit on a call.
    memory_mb: address space of the process, in MiB.
    Raises: PermissionError without GRPO_ALLOW_CODE=1, RuntimeError where the sandbox cannot be had, and TypeError or
    ValueError where `tests` is not as described above.
    """
    if os.environ.get("GRPO_ALLOW_CODE") != "1":
        raise PermissionError(
            "python_tests runs code that a model wrote. It does so in a sandbox, and only if you say that it may: set "
            "the environment variable GRPO_ALLOW_CODE=1."
        )
    if sys.platform != "linux":
        raise RuntimeError("python_tests needs Linux: its sandbox is made of Landlock and seccomp.")
    pairs = _pairs(tests)
    asserts = _Asserts.parse(tests) if pairs is None else None
    code = last_block(response)
    if code is None:
        return 0.0
    sandbox = _Sandbox(code, deadline=time.monotonic() + seconds, memory=memory_mb << 20)
    if asserts is not None:
        return float(asserts.hold(sandbox))
    return float(all(_lines(sandbox.output(pair["input"])) == _lines(pair["output"]) for pair in pairs))


def last_block(response: str) -> str | None:
    """Content of the last fenced block marked python or py, else of the last unmarked one; None without a block."""
    blocks, opening = [], None
    for fence in FENCE.finditer(response + "\n"):
        if opening is None:
            opening = fence
        elif not fence[1]:
            blocks.append((opening[1].lower(), response[opening.end() : fence.start()]))
            opening = None
    for languages in (("python", "py", "python3"), ("",)):
        found = [text for language, text in blocks if language in languages]
        if found:
            return found[-1]
    return None


def _pairs(tests: str | Sequence[Any]) -> list[dict[str, str]] | None:
    if isinstance(tests, str) or not any(isinstance(test, dict) for test in tests):
        return None
    for test in tests:
        if not (isinstance(test, dict) and isinstance(test.get("input"), str) and isinstance(test.get("output"), str)):
            raise TypeError(f"a test must hold the texts 'input' and 'output', as the others do; this one is {test!r}.")
    return list(tests)


def _lines(text: str | None) -> list[str] | None:
    return None if text is None else [line.rstrip() for line in text.rstrip().split("\n")]


@dataclass(frozen=True)
class _Asserts:
    """Assertions, rewritten so that the literals to compare with stay here."""

    source: str
    expected: dict[str, Any]
    """The literals, by the number that stands for each in the source."""

    @classmethod
    def parse(cls, tests: str | Sequence[str]) -> _Asserts:
        if not (isinstance(tests, str) or all(isinstance(test, str) for test in tests)):
            raise TypeError("tests must be source text, a list of source texts, or a list of input-output pairs.")
        tree = ast.parse(tests if isinstance(tests, str) else "\n".join(tests))
        if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
            raise ValueError("tests hold no assert statement: any code would pass.")
        rewriter = _LiteralsOut()
        source = ast.unparse(ast.fix_missing_locations(rewriter.visit(tree)))
        return cls(source, rewriter.expected)

    def hold(self, sandbox: _Sandbox) -> bool:
        """Whether the tests ran to their end, every comparison was made, and every one came out equal."""
        secret = secrets.token_hex(16)
        report = sandbox.report(f"{secret}\n{self.source}")
        lines = [line.removeprefix(f"{secret} ") for line in report.split("\n") if line.startswith(f"{secret} ")]
        if not lines or lines.pop() != "end":
            return False
        made = [line.split(" ", 1) for line in lines]
        return {number for number, _ in made} == set(self.expected) and all(
            _equal(text, self.expected[number]) for number, text in made
        )


class _LiteralsOut(ast.NodeTransformer):
    """`assert EXPRESSION == LITERAL` -> `__check__(n, EXPRESSION)`, with the literal kept in `expected`."""

    def __init__(self) -> None:
        self.expected: dict[str, Any] = {}

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        match node.test:
            case ast.Compare(left=expression, ops=[ast.Eq()], comparators=[gold]):
                number = len(self.expected)
                try:
                    self.expected[str(number)] = ast.literal_eval(gold)
                except (ValueError, TypeError):  # not a literal: this assertion stays as it is
                    return node
                arguments = [ast.Constant(number), expression]
                return ast.Expr(ast.Call(ast.Name("__check__", ast.Load()), arguments, []))
        return node

    def _leave(self, node: ast.stmt) -> ast.stmt:
        return node  # what may rightly be skipped, or whose failure is caught, cannot be required to come out equal

    visit_If = visit_Try = visit_TryStar = visit_Match = _leave


def _equal(text: str, gold: Any) -> bool:
    if len(text) > 20 * len(repr(gold)) + 1000:
        return False  # to parse a megabyte would take a hundred
    try:
        return bool(ast.literal_eval(text) == gold)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # not a plain value: equal to no literal
        return False


@dataclass(frozen=True)
class _Sandbox:
    """Runs one piece of code, as often as asked, until a deadline that all runs share."""

    code: str
    deadline: float
    memory: int

    def output(self, stdin: str) -> str | None:
        """What the code prints as a program; None where it fails, is stopped, or prints too much."""
        ended_well, printed, _ = self._run(stdin, tests=None)
        return printed if ended_well else None

    def report(self, tests: str) -> str:
        """What the tests reported about the code; without an end where it failed or was stopped."""
        return self._run("", tests)[2]

    def _run(self, stdin: str, tests: str | None) -> tuple[bool, str, str]:
        with ExitStack() as stack:

            def file(content: str = "") -> BinaryIO:
                opened = stack.enter_context(open(os.memfd_create("grpo"), "w+b"))
                opened.write(content.encode("utf-8", "replace"))
                opened.seek(0)
                return opened

            code, standard_input, output, errors, setup, report = map(file, (self.code, stdin, "", "", "", ""))
            test_file = None if tests is None else file(tests)
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="grpo-python-"))
            settings = {
                "code": code.fileno(),
                "tests": test_file and test_file.fileno(),
                "setup": setup.fileno(),
                "report": report.fileno(),
                "parent": os.getpid(),
                "memory": self.memory,
                "cpu_seconds": max(1, math.ceil(self.deadline - time.monotonic())),
                "file_bytes": FILE_BYTES,
            }
            left = self.deadline - time.monotonic()
            process = subprocess.Popen(
                [sys.executable, *PYTHON_OPTIONS, str(SANDBOX), json.dumps(settings)],
                stdin=standard_input,
                stdout=output,
                stderr=errors,
                pass_fds=[f.fileno() for f in (code, setup, report, test_file) if f is not None],
                cwd=scratch,
                env={"PYTHONHASHSEED": "0"},  # the order of a set must not differ from run to run
                start_new_session=True,
            )
            ended_well = self._wait(process, scratch)
            said, printed, reported, complaint = (_text(f) for f in (setup, output, report, errors))
            if not (said or complaint) and left < START_SECONDS:
                return False, "", ""  # earlier tests have used the time up: the response's fault, not the sandbox's
            if said != "ready":
                raise RuntimeError(
                    f"the sandbox of python_tests could not be set up, so no code was run: "
                    f"{said or complaint[-500:] or 'it did not start in time'}."
                )
            return ended_well, printed, reported

    def _wait(self, process: subprocess.Popen, scratch: str) -> bool:
        """Whether the process ended by itself, in time and with status 0. It has ended, one way or the other."""
        try:
            while time.monotonic() < self.deadline and not _overfull(scratch):
                try:
                    return process.wait(timeout=0.02) == 0
                except subprocess.TimeoutExpired:
                    continue
            return False
        finally:
            process.kill()
            process.wait()


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(FILE_BYTES + 1).decode("utf-8", "replace")


def _overfull(folder: str) -> bool:
    total = 0
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries, 1):
            with suppress(FileNotFoundError):  # removed since it was listed
                total += entry.stat(follow_symlinks=False).st_blocks * 512
            if total > SCRATCH_BYTES or count > SCRATCH_FILES:
                return True
    return False
