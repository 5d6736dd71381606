"""rewards/python_tests.py and rewards/_sandbox.py with real processes: what passes, what cheats, what attacks.

They need a kernel with Landlock, as the verifier does, and fail with its explanation on one without.
"""

import inspect
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grpo import plugins

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is made of Landlock and seccomp")
reward = plugins.load("python_tests", "rewards")
module = inspect.getmodule(reward)
SANDBOX = plugins.folder("rewards") / "_sandbox.py"
DOUBLE = "def double(x):\n    return 2 * x"
TESTS = "assert double(4) == 8"


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    monkeypatch.setenv("GRPO_ALLOW_CODE", "1")


def fenced(code):
    return f"My answer:\n```python\n{code}\n```\n"


def judge(code, tests=TESTS, **limits):
    return reward(fenced(code), tests=tests, **limits)


def run(code, seconds=4.0):
    """What a program prints within the sandbox; None where it fails."""
    return module._Sandbox(code, time.monotonic() + seconds, 512 << 20).output("")


def refusal(statement):
    """The name of the exception that a statement meets within the sandbox, or `done`."""
    body = "\n    ".join(statement.split("\n"))
    return run(
        f"import os, sys\ntry:\n    {body}\n    print('done')\nexcept BaseException as e: print(type(e).__name__)"
    )


# --- what passes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ("assert double(4) == 8", 1.0),
        ("assert double(4) == 9", 0.0),
        (["assert double(4) == 8", "assert double('a') == 'aa'"], 1.0),
        (["assert double(4) == 8", "assert double('a') == 'a'"], 0.0),
        ("for i in range(3):\n    assert double(i) == i + i", 1.0),
        ("assert double([1]) == [1, 1]\nassert double((1,)) == (1, 1)", 1.0),
        ("assert double((1,)) == [1, 1]", 0.0),
        ("assert double(True) == 2 and double(0.1) < 0.3", 1.0),
        ("import math\nassert math.isclose(double(0.1), 0.2)", 1.0),
        ("assert not double(0)", 1.0),
        ("assert double(4) != 8", 0.0),
        ("def check(f):\n    assert f(1) == 2\n    assert f(2) == 4\ncheck(double)", 1.0),
        ("def check(f):\n    assert f(1) == 2\n    assert f(2) == 5\ncheck(double)", 0.0),
        ("def never_called():\n    assert double(1) == 2", 0.0),
        ("try:\n    double()\n    assert False\nexcept TypeError:\n    pass", 1.0),
        ("import collections\nassert collections.Counter('aab') == {'a': 2, 'b': 1}\nassert {1: 2}.keys() == {1}", 1.0),
        ("assert double('\\n\\0') == '\\n\\0\\n\\0'", 1.0),
        ("assert double(float('nan')) == 0", 0.0),
    ],
)
def test_assertions(tests, expected):
    assert judge(DOUBLE, tests) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("a, b = map(int, input().split())\nprint(a + b)", 1.0),
        ("a, b = map(int, input().split())\nprint(a + b, end='  \\n\\n')", 1.0),
        ("import sys\nif __name__ == '__main__':\n    print(sum(map(int, sys.stdin.read().split())))", 1.0),
        ("import sys\nprint(sum(map(int, input().split())))\nsys.exit()", 1.0),
        ("print(3)", 0.0),
        ("a, b = map(int, input().split())\nprint(a + b)\nraise ValueError", 0.0),
        ("a, b = map(int, input().split())\nprint('the sum is', a + b)", 0.0),
    ],
)
def test_input_and_output(code, expected):
    pairs = [{"input": "1 2\n", "output": "3\n"}, {"input": "10 -2", "output": "8"}]
    assert judge(code, pairs) == expected


@pytest.mark.parametrize(
    ("response", "block"),
    [
        ("```python\na\n```", "a\n"),
        ("```py\na\n```\n```python\nb\n```", "b\n"),
        ("```python\na\n```\n```\noutput\n```", "a\n"),
        ("```\na\n```", "a\n"),
        ("  ```python title=x\n  a\n  ```", "  a\n"),
        ("```bash\nls\n```", None),
        ("```python\na", None),
        ("no block", None),
        ("", None),
    ],
)
def test_last_block(response, block):
    assert module.last_block(response) == block


def test_without_a_block_nothing_passes():
    assert reward(DOUBLE, tests=TESTS) == 0.0


def test_threads_and_the_standard_library_work():
    code = "import decimal, json, random, sqlite3, zlib, concurrent.futures as f\n"
    code += "print(list(f.ThreadPoolExecutor(4).map(str, range(3))))"
    assert run(code) == "['0', '1', '2']\n"


def test_the_order_of_a_set_is_the_same_each_time():
    code = "print(list({'a', 'b', 'c', 'd', 'e', 'f'}))"
    assert run(code) == run(code) != "[]\n"


# --- what is asked of the user ------------------------------------------------------------------------------------


def test_runs_nothing_unless_allowed(monkeypatch):
    monkeypatch.delenv("GRPO_ALLOW_CODE")
    with pytest.raises(PermissionError, match="GRPO_ALLOW_CODE=1"):
        judge(DOUBLE)


@pytest.mark.parametrize(
    ("tests", "error"),
    [
        ("", ValueError),
        ([], ValueError),
        ("double(4)", ValueError),
        ("assert (", SyntaxError),
        ([{"input": "1"}], TypeError),
        ([{"input": "1", "output": 1}], TypeError),
        ([{"input": "1", "output": "1"}, "assert True"], TypeError),
        ([1], TypeError),
    ],
)
def test_a_wrong_row_is_an_error_and_not_a_zero(tests, error):
    with pytest.raises(error):
        judge(DOUBLE, tests)


@pytest.mark.parametrize("missing", ["restrict_files", "restrict_calls"])
def test_refuses_where_the_kernel_grants_less_than_it_says(missing, tmp_path, monkeypatch):
    source = SANDBOX.read_text()
    crippled = re.sub(rf"^    {missing}\(.*\)$", "    pass", source, flags=re.MULTILINE)
    assert crippled != source
    (tmp_path / "_sandbox.py").write_text(crippled)
    monkeypatch.setattr(module, "SANDBOX", tmp_path / "_sandbox.py")
    with pytest.raises(RuntimeError, match="should have been refused"):
        judge(DOUBLE)


def test_refuses_an_unknown_machine(tmp_path, monkeypatch):
    (tmp_path / "_sandbox.py").write_text(SANDBOX.read_text().replace('MACHINES = {"x86_64"', 'MACHINES = {"other"'))
    monkeypatch.setattr(module, "SANDBOX", tmp_path / "_sandbox.py")
    if os.uname().machine == "x86_64":
        with pytest.raises(RuntimeError, match="system calls of x86_64 are not listed"):
            judge(DOUBLE)


# --- what cheats --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nprint('OK')\nsys.exit(0)",
        "import os\nprint('all tests passed')\nos._exit(0)",
        "import atexit, os\natexit.register(os._exit, 0)",
        "def double(x):\n    import sys\n    sys.exit(0)",
        "def double(x):\n    import os\n    os._exit(0)",
        "class Same:\n    def __eq__(self, other): return True\ndef double(x): return Same()",
        "class Same(int):\n    def __eq__(self, other): return True\ndef double(x): return Same(7)",
        "class Same(dict):\n    def __eq__(self, other): return True\ndef double(x): return Same()",
        "class Same:\n    def __repr__(self): return 'x' * 500_000\ndef double(x): return Same()",
        "def double(x):\n    globals()['__check__'] = lambda *_: None",
        "import builtins\nbuiltins.AssertionError = type('Quiet', (BaseException,), {})\ndef double(x): return 9",
        "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'ready end\\n0 8\\nend\\n')\n"
        "    except OSError: pass\ndef double(x): return 9",
        "import os\nos.closerange(0, 4096)\ndef double(x): return 8",
    ],
)
def test_a_pass_cannot_be_had_without_the_right_value(code):
    assert judge(code) == 0.0


def test_leaving_early_does_not_pass_assertions_of_other_forms():
    for leave in ("import sys; sys.exit(0)", "import os; os._exit(0)"):
        assert judge(leave, "assert double(4) > 7") == 0.0
        assert judge(f"def double(x):\n    {leave}", "assert double(4) > 7") == 0.0


# --- what attacks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "open('/etc/passwd')",
        "os.listdir('/')",
        "open(f'/proc/{os.getppid()}/environ')",
        "open('/proc/self/mem')",
        "open(os.__file__, 'a')",
        "os.open(os.__file__, os.O_RDONLY | os.O_TRUNC)",
        "os.open(os.__file__, 3 | os.O_TRUNC)",
        "os.truncate(os.__file__, 0)",
        "os.unlink(os.__file__)",
        "os.rename(os.__file__, 'os.py')",
        "os.chmod(os.__file__, 0)",
        "os.chown(os.__file__, 1, 1)",
        "os.utime(os.__file__)",
        "os.symlink('/etc/passwd', 'here')",
        "os.link(os.__file__, 'here')",
        "os.mkdir('/tmp/there')",
        "open('../there', 'w')",
        "import socket; socket.socket()",
        "import socket; socket.socketpair()",
        "import socket; socket.create_connection(('127.0.0.1', 1))",
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.execv('/bin/true', ['true'])",
        "import subprocess; subprocess.run(['true'])",
        "import multiprocessing; multiprocessing.Pool(1)",
        "os.kill(os.getppid(), 9)",
        "os.kill(-1, 9)",
        "os.killpg(0, 9)",
        "import fcntl; fcntl.fcntl(1, fcntl.F_SETOWN, os.getppid())",
        "os.memfd_create('x')",
        "os.setuid(0)",
        "os.nice(-1)",
        "os.chroot('.')",
    ],
)
def test_is_refused(statement):
    assert refusal(statement) == "PermissionError\n"


def test_raw_system_calls_are_refused():
    code = "import ctypes, errno\nc = ctypes.CDLL(None, use_errno=True)\n"
    code += "for n in range(460, 600): assert c.syscall(n, 0, 0, 0) == -1 and ctypes.get_errno() == errno.EPERM\n"
    code += "names = ['ptrace', 'unshare', 'prctl', 'vfork', 'shmget', 'syscall']\n"
    code += "print([(getattr(c, n)(0x40000029, 1, 1, 0), ctypes.get_errno()) for n in names if n != 'vfork'])"
    assert run(code) == f"{[(-1, 1)] * 5}\n"


def test_limits_cannot_be_lifted():
    assert refusal("import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))") == "ValueError\n"


def test_sees_no_environment_no_input_and_an_empty_folder(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    code = "import os, sys\nprint(sorted(os.environ), os.listdir(), sys.stdin.read(), sys.argv)"
    assert run(code) == "['LC_CTYPE', 'PYTHONHASHSEED'] []  ['solution.py']\n"


def test_may_use_its_scratch_folder_which_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = "import os\nopen('a', 'w').write('hello')\nos.rename('a', 'b')\nprint(open('b').read(), os.listdir())"
    assert run(code) == "hello ['b']\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import time\ntime.sleep(1000)",
        "import os\nos.kill(os.getpid(), 19)",
        "import signal\nfor s in {*signal.Signals} - {9, 19}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        "9 ** 9 ** 9",
    ],
)
def test_endless_code_is_stopped_at_the_limit(code):
    start = time.monotonic()
    assert judge(code, seconds=1.0) == 0.0
    assert 0.9 < time.monotonic() - start < 1.9


def test_the_limit_is_on_all_tests_together():
    pairs = [{"input": "", "output": ""}] * 50
    start = time.monotonic()
    assert judge("import time\ntime.sleep(0.3)", pairs, seconds=1.0) == 0.0
    assert time.monotonic() - start < 1.9


@pytest.mark.parametrize(
    "code",
    [
        "x = [bytearray(1 << 20) for _ in range(10**6)]",
        "x = 'a' * (1 << 40)",
        "import sys\nfor _ in range(1024): sys.stdout.write('x' * (1 << 20))",
        "import os\nwhile True: os.write(1, b'x' * (1 << 20))",
        "import os\nwhile True: os.write(2, b'x' * (1 << 20))",
        "open('big', 'wb').truncate(1 << 40)",
        "i = 0\nwhile True:\n    i += 1\n    open(str(i), 'wb').write(b'x' * (1 << 20))",
        "i = 0\nwhile True:\n    i += 1\n    open(str(i), 'wb')",
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
        "import os\nwhile True: os.fork()",
        "def f(): f()\nf()",
        "import ctypes\nctypes.string_at(0)",
        "(" * 100_000,
        "x = " + "-" * 100_000 + "1",
        "x = '\0'",
        "x = \ud800",
        "import os\nfor fd in range(4096):\n    try: os.ftruncate(fd, 0)\n    except OSError: pass",
    ],
)
def test_bombs_and_crashes_score_0(code):
    start = time.monotonic()
    assert judge(code + "\n" + DOUBLE, seconds=10.0) == 0.0
    assert time.monotonic() - start < 9.0


def test_ends_with_its_parent(tmp_path):
    script = tmp_path / "worker.py"
    code = fenced("import time\nopen('started', 'w')\ntime.sleep(100)")
    script.write_text(
        f"import sys, tempfile\nsys.path.insert(0, {str(plugins.folder('rewards'))!r})\nimport python_tests\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\npython_tests.reward({code!r}, tests='assert True', seconds=100)"
    )
    worker = subprocess.Popen([sys.executable, str(script)])
    until(lambda: list(tmp_path.glob("*/started")))
    [child] = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    until(lambda: not Path(f"/proc/{child}").exists())


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+)\s+(\d+)$"),
    "aarch64": ("/usr/include/asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+)\s+(\d+)$"),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_system_call_numbers_are_those_of_the_kernel(machine):
    header, pattern = HEADERS[machine]
    if not Path(header).exists():
        pytest.skip(f"no {header}")
    numbers = dict(re.findall(pattern, Path(header).read_text(), flags=re.MULTILINE))
    numbers.setdefault("newfstatat", numbers.get("fstatat"))
    sandbox = plugins.load(f"{SANDBOX}:allowed_calls", "rewards")
    assert {name: int(numbers[name]) for name in sandbox(machine)} == sandbox(machine)
