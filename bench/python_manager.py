#!/usr/bin/env python3
"""The design the fabric replaces: queues exported by multiprocessing's BaseManager over TCP with an authkey.

One server process owns a task and a result queue, one worker process takes, computes and answers, as in the
tutorial. Prints one line: round trip p50, p99, p99.9 in ns, answered tasks a second. Argument: seconds a part.
"""
import multiprocessing as mp
import queue
import sys
import time
from multiprocessing.managers import BaseManager

TASKS, RESULTS = queue.Queue(), queue.Queue()
KEY = b"a short secret"


class Manager(BaseManager):
    pass


def feb(n):
    f = [1, 1, 2, 3, 5]
    for i in range(5, n + 1):
        f.append(f[i - 1] + f[i - 2] - f[i - 5])
    return f[max(n, 0)]


def serve(pipe):
    Manager.register("tasks", callable=lambda: TASKS)
    Manager.register("results", callable=lambda: RESULTS)
    server = Manager(address=("127.0.0.1", 0), authkey=KEY).get_server()
    pipe.send(server.address)
    server.serve_forever()


def connect(address):
    Manager.register("tasks")
    Manager.register("results")
    m = Manager(address=address, authkey=KEY)
    m.connect()
    return m.tasks(), m.results()


def work(address):
    tasks, results = connect(address)
    answer = feb(48)  # computed once: what is measured is the way there and back
    while True:
        if tasks.get() != 48:
            raise SystemExit("a wrong task")
        results.put(answer)


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3
    ours, theirs = mp.Pipe()
    server = mp.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    address = ours.recv()
    worker = mp.Process(target=work, args=(address,), daemon=True)
    worker.start()
    tasks, results = connect(address)
    rtt, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        t = time.perf_counter_ns()
        tasks.put(48)
        if results.get() != 106373551:
            raise SystemExit("a wrong answer")
        rtt.append(time.perf_counter_ns() - t)
    n, start = 0, time.perf_counter()
    for _ in range(64):
        tasks.put(48)
    while time.perf_counter() - start < seconds:
        if results.get() != 106373551:
            raise SystemExit("a wrong answer")
        n += 1
        tasks.put(48)
    rate = n / (time.perf_counter() - start)
    rtt.sort()
    print(rtt[len(rtt) // 2], rtt[len(rtt) * 99 // 100], rtt[len(rtt) * 999 // 1000], rate)
    worker.terminate()
    server.terminate()


if __name__ == "__main__":
    main()
