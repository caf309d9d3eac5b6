"""The peers: what each needs, how it is measured, what it guarantees."""
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import servers

HERE = os.path.dirname(os.path.abspath(__file__))
# Debian's packages are for Debian's Python.
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable


@dataclass(frozen=True)
class Peer:
    name: str
    packages: tuple  # Debian's; the first gives the version. (): what Python itself has
    program: str     # BUILD/bench/peers/peer-PROGRAM, ""
    run: Callable    # (servers.Bench, program's path, seconds) -> dict of figures
    guarantee: str


def timeout(seconds):
    return 60 + 30 * seconds


def served(server, mode):
    """A C program on a server."""
    def run(b, program, seconds):
        address = server(b)
        return json.loads(b.measure([program, mode, address, str(seconds)], timeout(seconds)))
    return run


def direct(mode, address):
    """A C program that connects its two processes by itself."""
    def run(b, program, seconds):
        return json.loads(b.measure([program, mode, address.format(dir=b.directory), str(seconds)], timeout(seconds)))
    return run


def manager(b, program, seconds):
    script = os.path.join(os.path.dirname(HERE), "python_manager.py")
    p50, p99, _, rate = map(float, b.measure([PYTHON, script, str(seconds)], timeout(seconds)).split())
    return {"rtt_p50_ns": p50, "rtt_p99_ns": p99, "throughput": rate, "batch": 1, "window": 64}


def executor(mode):
    def run(b, program, seconds):
        return json.loads(b.measure([PYTHON, os.path.join(HERE, "executor_peer.py"), mode, str(seconds)], timeout(seconds)))
    return run


def celery(b, program, seconds):
    env = {"PEER_REDIS": servers.redis(b), "PYTHONPATH": HERE, "PYTHONDONTWRITEBYTECODE": "1", "C_FORCE_ROOT": "1"}
    b.start([PYTHON, "-m", "celery", "-A", "celery_peer", "worker", "--pool", "solo", "--concurrency", "1", "--without-gossip",
             "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR"], env=env)
    return json.loads(b.measure([PYTHON, os.path.join(HERE, "celery_peer.py"), str(seconds)], timeout(seconds), env=env))


def dask(b, program, seconds):
    env = {"PYTHONPATH": HERE, "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [PYTHON, os.path.join(HERE, "dask_peer.py"), str(seconds), b.directory]
    return json.loads(b.measure(argv, timeout(seconds), env=env))


def mpi(mode):
    """mpirun with two ranks on cores of their own, its files in the private directory, its sockets on loopback."""
    def run(b, program, seconds):
        argv = ["mpirun", "--allow-run-as-root", "-np", "2", "--use-hwthread-cpus"]
        for name, value in (("pml", "ob1"), ("btl", "self,vader"), ("btl_vader_backing_directory", b.directory),
                            ("btl_vader_single_copy_mechanism", "none"), ("orte_tmpdir_base", b.directory),
                            ("oob_tcp_if_include", "lo"), ("plm", "isolated")):
            argv += ["--mca", name, value]
        argv += ["--bind-to", "hwthread"] if len(os.sched_getaffinity(0)) > 1 else ["--oversubscribe", "--bind-to", "none"]
        return json.loads(b.measure([*argv, program, mode, "-", str(seconds)], timeout(seconds), env={"TMPDIR": b.directory}))
    return run


NOTHING = "none: what is under way is lost with either side"
PEERS = [
    Peer("manager", (), "", manager, "none: a task taken is lost with its worker; in memory"),
    Peer("executor-submit", (), "", executor("submit"), "none: a dead worker breaks the pool; in memory"),
    Peer("executor-map", (), "", executor("map"), "none: a dead worker breaks the pool; in memory; a batch is one message"),
    Peer("celery", ("python3-celery", "python3-redis", "redis-server"), "", celery,
         "late ack; given again after the visibility timeout (1 h); results kept; in memory"),
    Peer("dask", ("python3-distributed",), "", dask,
         "run again when its worker dies, thrice; lost with the scheduler; in memory"),
    Peer("redis-lists", ("redis-server", "libhiredis-dev"), "redis", served(servers.redis, "lists"),
         "accepted by the server; no ack: a task taken is lost with its worker; in memory"),
    Peer("redis-streams", ("redis-server", "libhiredis-dev"), "redis", served(servers.redis, "streams"),
         "accepted; ack; what a dead worker held waits for somebody to claim it; in memory"),
    Peer("beanstalkd", ("beanstalkd",), "beanstalkd", served(servers.beanstalkd, "tubes"),
         "accepted; lease of 60 s and ack, given again at once when the connection closes; answers likewise; in memory"),
    Peer("gearman", ("gearman-job-server", "libgearman-dev"), "gearman", served(servers.gearmand, "jobs"),
         "given again when the worker's connection closes; lost with server or client; in memory"),
    Peer("rabbitmq", ("rabbitmq-server", "librabbitmq-dev"), "rabbitmq", served(servers.rabbitmq, "queues"),
         "ack, given again when the connection closes; publications not confirmed; in memory"),
    Peer("nats", ("nats-server",), "nats", served(servers.nats, "core"), "none: at most once"),
    Peer("nats-jetstream", ("nats-server",), "nats", served(servers.nats, "jetstream"),
         "accepted; ack, given again after 30 s; answers at most once; in memory"),
    Peer("nng-reqrep-tcp", ("libnng-dev",), "nng", direct("reqrep", "tcp://127.0.0.1:0"),
         "asked again when the connection goes or after 60 s"),
    Peer("nng-reqrep-ipc", ("libnng-dev",), "nng", direct("reqrep", "ipc://{dir}/"),
         "asked again when the connection goes or after 60 s"),
    Peer("nng-pushpull-tcp", ("libnng-dev",), "nng", direct("pushpull", "tcp://127.0.0.1:0"), NOTHING),
    Peer("nng-pushpull-ipc", ("libnng-dev",), "nng", direct("pushpull", "ipc://{dir}/"), NOTHING),
    Peer("zeromq-tcp", ("libzmq3-dev",), "zeromq", direct("answers", "tcp://127.0.0.1:*"), NOTHING),
    Peer("zeromq-ipc", ("libzmq3-dev",), "zeromq", direct("answers", "ipc://{dir}/"), NOTHING),
    Peer("zeromq-oneway-tcp", ("libzmq3-dev",), "zeromq", direct("oneway", "tcp://127.0.0.1:*"), NOTHING + "; no answers"),
    Peer("zeromq-oneway-ipc", ("libzmq3-dev",), "zeromq", direct("oneway", "ipc://{dir}/"), NOTHING + "; no answers"),
    Peer("mpi-messages", ("libopenmpi-dev", "openmpi-bin"), "mpi", mpi("messages"),
         "none: a dead rank ends the job; both sides poll"),
    Peer("mpi-arrays", ("libopenmpi-dev", "openmpi-bin"), "mpi", mpi("arrays"),
         "none: a dead rank ends the job; both sides poll; a batch is one message"),
]
