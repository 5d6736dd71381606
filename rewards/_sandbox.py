"""A Python program that locks itself in and then runs code that nobody trusts: the child process of `python_tests`.

Started as `python -P -s -S -B _sandbox.py SETTINGS` (JSON, see `main`) in an empty scratch folder. It refuses, with a
reason on its `setup` file, unless the kernel agrees to every one of these, none of which needs root:

- rlimits: address space, CPU seconds, bytes of any one file (standard output included), open files, no core dump;
- Landlock: readable are the scratch folder, Python's own library and the system's shared libraries; writable are the
  scratch folder, which stays flat, and /dev/null;
- seccomp: only the system calls listed below. No socket, no new process or program (threads are allowed), no signal to
  another process, no change of mode or owner, no lifting of limits;
- the kernel kills it when its parent ends.

What stays possible: asking whether a file elsewhere exists and how large it is (`stat`), using CPU up to the limit.
Tried on x86-64; for AArch64 the system-call numbers are those of the kernel's headers.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import struct
import sys
import sysconfig
import types
from collections.abc import Callable

SYSTEM_CALLS = """
    read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, lseek 8 62, close 3 57
    fstat 5 80, ftruncate 77 46, fsync 74 82, fdatasync 75 83, dup 32 23, dup2 33 -, dup3 292 24, fcntl 72 25
    ioctl 16 29
    open 2 -, openat 257 56, stat 4 -, lstat 6 -, newfstatat 262 79, statx 332 291, access 21 -, faccessat 269 48
    faccessat2 439 439, readlink 89 -, readlinkat 267 78, unlink 87 -, unlinkat 263 35, rename 82 -
    renameat 264 38, renameat2 316 276, getdents64 217 61, getcwd 79 17, chdir 80 49
    pipe 22 -, pipe2 293 59, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, nanosleep 35 101
    clock_nanosleep 230 115, pause 34 -, sched_yield 24 124
    mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, brk 12 214, membarrier 324 283
    getpid 39 172, gettid 186 178, getppid 110 173, getuid 102 174, getgid 104 176, geteuid 107 175
    getegid 108 177, getrusage 98 165, times 100 153, uname 63 160, sysinfo 99 179, sched_getaffinity 204 123
    getrandom 318 278, exit 60 93, exit_group 231 94, clone 56 220, clone3 435 435, futex 202 98
    set_robust_list 273 99, rseq 334 293, restart_syscall 219 128
    rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, sigaltstack 131 132, kill 62 129
    tgkill 234 131, alarm 37 -, setitimer 38 103, getitimer 36 102, clock_gettime 228 113, clock_getres 229 114
    gettimeofday 96 169, time 201 -
"""
"""Name, number on x86-64, on AArch64 ("-": none there). All others fail; `conditions` restricts some of these."""
MACHINES = {"x86_64": (1, 0xC000003E), "aarch64": (2, 0xC00000B7)}
"""Machine -> its column in SYSTEM_CALLS, its number in the kernel's audit.h."""

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
WRITE_FILE, READ_FILE, READ_DIR, REMOVE_FILE, MAKE_REG, TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8, 1 << 14

libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The kernel does not offer a part of the sandbox."""


def kernel(what: str, function: str, *arguments: int | bytes | ctypes.Array) -> int:
    """Calls a C function with machine words. Raises: Refused, naming what was asked for, where it returns -1."""
    words = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    result = getattr(libc, function)(*words)
    if result < 0:
        raise Refused(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def limit_resources(memory: int, cpu_seconds: int, file_bytes: int) -> None:
    wanted = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def restrict_files(scratch: str) -> None:
    """Landlock: every access to files that it knows of is refused, but for the paths named here."""
    version = kernel("Landlock (Linux 5.13 or later)", "syscall", LANDLOCK_CREATE, 0, 0, 1)
    known = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)  # bits of access rights by version
    handled = (1 << known) - 1
    attributes = struct.pack("=Q", handled)
    rules = kernel("a Landlock ruleset", "syscall", LANDLOCK_CREATE, attributes, len(attributes), 0)
    library = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), f"{sys.base_prefix}/lib"}
    library |= {"/lib", "/lib64", "/usr/lib", "/usr/lib64"}
    allowed = {path: READ_FILE | READ_DIR for path in library if os.path.isdir(path)}
    allowed["/dev/null"] = READ_FILE | WRITE_FILE
    allowed[scratch] = READ_FILE | WRITE_FILE | READ_DIR | REMOVE_FILE | MAKE_REG | TRUNCATE
    for path, rights in allowed.items():
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        kernel(f"a rule for {path}", "syscall", LANDLOCK_ADD, rules, 1, struct.pack("=Qi", rights & handled, folder), 0)
        os.close(folder)
    kernel("Landlock", "syscall", LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)


def conditions() -> dict[str, tuple[int, int, list[int]]]:
    """System call -> (argument, mask, values): allowed where the masked low word of the argument is one of values."""
    truncate_and_mode = os.O_TRUNC | os.O_ACCMODE
    opening = [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_TRUNC]
    return {
        # Before its third version Landlock lets a file that may not be written be emptied by O_RDONLY | O_TRUNC.
        "open": (1, truncate_and_mode, opening),
        "openat": (2, truncate_and_mode, opening),
        "fcntl": (1, 0xFFFFFFFF, [0, 1, 2, 3, 4, 5, 6, 7, 1030]),  # not F_SETOWN: it sends signals to others
        "ioctl": (1, 0xFFFFFFFF, [0x5401, 0x5451]),  # isatty, close-on-exec
        "clone": (0, 0x10000, [0x10000]),  # a thread, not a process
        "kill": (0, 0xFFFFFFFF, [os.getpid()]),
        "tgkill": (0, 0xFFFFFFFF, [os.getpid()]),
    }


def allowed_calls(machine: str) -> dict[str, int]:
    """Name -> number of the system calls that a machine allows. Raises: Refused where it has no column."""
    if machine not in MACHINES or sys.byteorder != "little":
        raise Refused(f"the system calls of {machine} are not listed, only those of {', '.join(MACHINES)}")
    rows = [entry.split() for entry in SYSTEM_CALLS.replace("\n", ",").split(",") if entry.strip()]
    column = MACHINES[machine][0]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def restrict_calls() -> None:
    """seccomp: a system call that is not allowed fails with EPERM, and never ends the process."""
    calls, restricted = allowed_calls(platform.machine()), conditions()

    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, value)

    load, equal, mask_with, end = 0x20, 0x15, 0x54, 0x06
    allow, fail, end_process = step(end, 0x7FFF0000), step(end, 0x50000 | errno.EPERM), step(end, 0x80000000)
    audit_number = MACHINES[platform.machine()][1]
    program = [step(load, 4), step(equal, audit_number, 1, 0), end_process, step(load, 0)]
    for name, number in calls.items():
        if name == "clone3":  # its flags are out of sight; the C library falls back on clone
            verdict = [step(end, 0x50000 | errno.ENOSYS)]
        elif name in restricted:
            argument, mask, values = restricted[name]
            verdict = [step(load, 16 + 8 * argument), step(mask_with, mask)]
            verdict += [s for value in values for s in (step(equal, value, 0, 1), allow)] + [fail]
        else:
            verdict = [allow]
        program += [step(equal, number, 0, len(verdict)), *verdict]
    program.append(fail)
    code = ctypes.create_string_buffer(b"".join(program))
    header = struct.pack("HP", len(program), ctypes.addressof(code))
    kernel("seccomp", "prctl", PR_SET_SECCOMP, 2, header, 0, 0)


def check_refusals() -> None:
    """What must fail is tried, so that a kernel that only pretends is found out."""
    attempts: dict[str, Callable] = {"listing /": lambda: os.listdir("/"), "a child process": os.fork}
    for what, attempt in attempts.items():
        try:
            child = attempt()
        except PermissionError:
            continue
        if child == 0:
            os._exit(1)
        raise Refused(f"{what} should have been refused and was not")
    if libc.socket(1, 1, 0) >= 0:
        raise Refused("a socket should have been refused and was not")


def lock_in(settings: dict) -> None:
    kernel("a signal at the parent's end", "prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != settings["parent"]:
        raise Refused("the parent has ended")
    limit_resources(settings["memory"], settings["cpu_seconds"], settings["file_bytes"])
    kernel("no new privileges", "prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    restrict_files(os.getcwd())
    restrict_calls()
    check_refusals()


def read_all(descriptor: int) -> str:
    with open(descriptor, encoding="utf-8") as file:
        return file.read()


def run(code: str, tests: int | None, report: int) -> None:
    """Runs the code as a program, or, where there are tests, as a module to which the tests are then applied.

    tests: file descriptor of a secret's line and the tests, read only once the code has run.
    report: file descriptor to which `__check__` and the end of the tests report, each line led by the secret.
    """
    module = types.ModuleType("__main__" if tests is None else "solution")
    sys.modules[module.__name__] = module
    sys.argv[:] = ["solution.py"]
    write, leave = os.write, os._exit  # taken before the code can replace them
    exec(compile(code, "<response>", "exec"), vars(module))
    if tests is None:
        return
    secret, _, source = read_all(tests).partition("\n")

    def check(index: int, value: object) -> None:
        write(report, f"{secret} {index} {plain(value)!r}\n".encode("utf-8", "replace"))

    vars(module)["__check__"] = check
    exec(compile(source, "<tests>", "exec"), vars(module))
    write(report, f"{secret} end\n".encode())
    leave(0)


def plain(value: object) -> object:
    """The value with subclasses of the built-in containers, a Counter say, made into the built-in ones."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    for kind in (list, tuple):
        if isinstance(value, kind):
            return kind(plain(item) for item in value)
    if isinstance(value, (set, frozenset, type({}.keys()))):
        return {plain(item) if not isinstance(item, (set, frozenset)) else frozenset(item) for item in value}
    for kind in (bool, int, float, str, bytes):
        if isinstance(value, kind):
            return kind(value)
    return value


def main() -> None:
    settings = json.loads(sys.argv[1])
    code = read_all(settings["code"])
    try:
        lock_in(settings)
    except (Refused, OSError, MemoryError) as error:
        os.write(settings["setup"], str(error or "too little memory").encode())
        sys.exit(1)
    os.write(settings["setup"], b"ready")
    os.close(settings["setup"])
    run(code, settings["tests"], settings["report"])


if __name__ == "__main__":
    main()
