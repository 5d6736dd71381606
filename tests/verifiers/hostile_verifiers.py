"""Verifiers that misbehave as the response tells them to; loaded by path in the tests beside it.

`reward("hang", "1")` hangs, `reward("exit", "1")` ends the process, and so on: what hostile text may do to an honest
verifier, without having to find text that does. Any other response gets 1.0 where it equals the answer.
"""

import asyncio
import ctypes
import os
import random
import signal
import sys
import threading
import time


def hang():
    while True:
        pass


def hang_and_catch_everything():
    while True:
        try:
            while True:
                pass
        except BaseException:  # a hostile verifier: no exception ends it
            pass


def hang_in_c():
    ctypes.PyDLL(None).sleep(1000)  # PyDLL keeps the GIL: nothing in Python can run


def hang_in_arithmetic():
    return 7 ** (7**12)


def hang_with_signals_blocked():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    time.sleep(1000)


def stop_itself():
    os.kill(os.getpid(), signal.SIGSTOP)


def await_forever():
    asyncio.run(asyncio.sleep(1000))


def fork_bomb_that_insists():
    while True:
        try:
            os.fork()
        except OSError:
            pass


def memory_at_once():
    return bytearray(1 << 40)


def memory_by_and_by():
    kept = []
    while True:
        kept.append(bytearray(1 << 24))


def recurse():
    return recurse()


def recurse_past_the_stack():
    sys.setrecursionlimit(10**9)
    nested = []
    for _ in range(10**6):
        nested = [nested]
    return repr(nested)


def exit_the_process():
    os._exit(7)


def system_exit():
    sys.exit(7)


def keyboard_interrupt():
    raise KeyboardInterrupt


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def segmentation_fault():
    ctypes.string_at(0)


def abort():
    os.abort()


def real_time_signal():
    os.kill(os.getpid(), signal.SIGRTMIN + 3)


def close_all_files():
    os.closerange(0, 1000)


def talk_into_the_wire():
    for descriptor in range(3, 100):
        try:
            os.write(descriptor, b'garbage\n["reward", 1.0')
        except OSError:
            pass


def fork_once():
    os.fork()


def fork_through_c():
    ctypes.CDLL(None).fork()


def run_a_shell():
    os.system("true")


def kill_the_trainer():
    os.kill(os.getppid(), signal.SIGKILL)


def raise_an_error():
    raise RuntimeError("no such luck")


def raise_an_error_that_cannot_be_shown():
    class Nasty(Exception):
        def __str__(self):
            raise ValueError

    raise Nasty


def print_megabytes():
    for _ in range(10**6):
        print("x" * 1000)


def return_the_unpicklable():
    return threading.Lock()


MISBEHAVIOUR = {name: value for name, value in globals().items() if callable(value)}


def reward(response, answer):
    if response in MISBEHAVIOUR:
        return MISBEHAVIOUR[response]()
    return response == answer


def leave_things_behind(response):
    """Changes whatever outlives a call, then says what it found."""
    found = f"{sys.getrecursionlimit()} {random.random()} {hash(response)} {sorted({'a', 'b', 'c'}, key=hash)}"
    sys.setrecursionlimit(500)
    random.seed(response)
    if response == "0":
        signal.setitimer(signal.ITIMER_REAL, 0.2)  # SIGALRM in the middle of a later call
    sys.stdout.write("x" * 100_000)
    time.sleep(0.02)
    return float(sum(map(ord, found)))


KEPT = []


def keep_memory(response):
    KEPT.append(bytearray(10 << 20))
    return float(len(KEPT))


def write_it_down(response, path):
    with open(path, "a") as file:
        file.write(f"{response}\n")
    return 1.0


def noisy(response):
    print("out", response)
    print("err", response, file=sys.stderr)
    os.write(1, b"raw out")
    os.write(2, b"raw err")
    return 1.0


def imported(response):
    return [name for name in ("torch", "vllm", "transformers", "numpy", "grpo.records") if name in sys.modules] == []
