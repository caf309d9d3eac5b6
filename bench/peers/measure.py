"""What the Python peers share: the work, its check, round trip and rate, and the line of JSON they end with.

Arguments go 0, 1, ... 63, 0, ... as in driver.c; an answer that is not right ends the program. One thread's.
"""
import json
import time
from collections import deque

ARGS = 64


def _table():
    f = [1, 1, 2, 3, 5]
    for i in range(5, ARGS):
        f.append(f[i - 1] + f[i - 2] - f[i - 5])
    return f


TABLE = _table()
assert TABLE[48] == 106373551


def feb(n):
    return TABLE[n]


def check(n, answer):
    if answer != TABLE[n]:
        raise SystemExit(f"a wrong answer: {answer} to feb({n})")


def rtt(call, seconds):
    """call(n) gives feb(n) as the worker computes it. Returns p50 and p99 in ns."""
    start = time.perf_counter()
    warm, end, k, ns = start + seconds / 5, start + seconds * 1.2, 0, []
    while (begin := time.perf_counter()) < end or len(ns) < 10:
        check(k % ARGS, call(k % ARGS))
        if begin >= warm:
            ns.append((time.perf_counter() - begin) * 1e9)
        k += 1
    ns.sort()
    return ns[len(ns) // 2], ns[len(ns) * 99 // 100]


def rate_window(submit, result, window, seconds):
    """submit(n) gives a handle, result(handle) its answer: `window` tasks are out at any time."""
    out, k, got = deque(), 0, 0
    start = time.perf_counter()
    warm = True
    while True:
        while len(out) < window:
            out.append((k % ARGS, submit(k % ARGS)))
            k += 1
        n, handle = out.popleft()
        check(n, result(handle))
        got += 1
        now = time.perf_counter()
        if warm and now - start > seconds / 5:
            warm, start, got = False, now, 0
        elif not warm and now - start > seconds:
            break
    value = got / (now - start)
    for n, handle in out:
        check(n, result(handle))
    return value


def rate_batch(run, batch, seconds):
    """run(list of n) gives all their answers in order."""
    args = [i % ARGS for i in range(batch)]
    start, got, warm = time.perf_counter(), 0, True
    while True:
        for n, answer in zip(args, run(args), strict=True):
            check(n, answer)
        got += batch
        now = time.perf_counter()
        if warm and now - start > seconds / 5:
            warm, start, got = False, now, 0
        elif not warm and now - start > seconds:
            return got / (now - start)


def report(latency, rates):
    """rates: (tasks a second, batch, window) each; the best is told."""
    best = max(rates)
    print(json.dumps({"rtt_p50_ns": round(latency[0]), "rtt_p99_ns": round(latency[1]), "throughput": round(best[0]),
                      "batch": best[1], "window": best[2]}))
