"""The servers of other systems, each started for one measurement and stopped by its pid.

A server listens on loopback alone (a Unix socket in a private directory where it can), keeps its files in that directory, has a
bound on its memory, and writes nothing to disk that its guarantee doesn't ask for. Each process is the leader of a session of its
own; its group is ended when the measurement is, and by a guard process when this one is killed.
"""
import ctypes
import os
import resource
import select
import signal
import socket
import subprocess
import time

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
START_S = 60


class Failed(Exception):
    """A server or a measurement that did not work; its text is for people."""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _child(memory):
    parent = os.getpid()

    def run():
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    return run


def ended(p, seconds):
    """Waits for a process's end, and leaves it to be waited for: while it is, nobody else gets its number."""
    if p.returncode is not None:
        return True
    fd = os.pidfd_open(p.pid)
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


def stop(p):
    """Ends a process and its group: asked first, then killed."""
    if p.returncode is not None:
        return
    os.killpg(p.pid, signal.SIGTERM)  # it leads a session of its own, and so a group
    ended(p, 5)
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()


class Guard:
    """A process that waits for the death of this one, to end a group then: the children of scripts and launchers outlive them.
    It waits on a pipe of which only this process has the other end."""
    ends = []  # of all guards: a younger guard must not hold an elder's

    def __init__(self, group):
        here, self.end = os.pipe()
        Guard.ends.append(self.end)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            for end in Guard.ends:
                os.close(end)
            if not os.read(here, 1):
                os.killpg(group, signal.SIGKILL)
            os._exit(0)
        os.close(here)

    def dismiss(self):
        os.write(self.end, b"!")
        Guard.ends.remove(self.end)
        os.close(self.end)
        os.waitpid(self.pid, 0)


class Bench:
    """One measurement's directory and processes. A context manager: leaving it ends them all."""

    def __init__(self, directory):
        self.directory = directory
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for p, guard in reversed(self.processes):
            stop(p)
            guard.dismiss()

    def path(self, name):
        return os.path.join(self.directory, name)

    def start(self, argv, env=None, memory=0, stdout=None):
        with open(self.path("log"), "ab") as log:
            p = subprocess.Popen(argv, cwd=self.directory, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
                                 stdout=stdout or log, stderr=log, start_new_session=True, preexec_fn=_child(memory))
        self.processes.append((p, Guard(p.pid)))
        return p

    def log(self):
        try:
            with open(self.path("log"), errors="replace") as f:
                lines = [line.strip() for line in f if line.strip()]
        except FileNotFoundError:
            lines = []
        own = [line for line in lines if "/bench/peers/peer-" in line]  # of our programs, before their launchers' and servers'
        return "; ".join((own or lines)[-3:])[-300:] or "it said nothing"

    def await_listening(self, process, address):
        """address: a path or a port. None of these servers tells when it listens, so it is tried."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if ended(process, 0):
                raise Failed(f"the server ended: {self.log()}")
            family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
            with socket.socket(family) as s:
                try:
                    s.connect(address if isinstance(address, str) else ("127.0.0.1", address))
                    return
                except OSError:
                    time.sleep(0.02)
        raise Failed(f"the server did not listen within {START_S} s: {self.log()}")

    def run(self, argv, timeout, env=None):
        """Runs a program to its end; what it printed."""
        with open(self.path("out"), "w+b") as out:
            p = self.start(argv, env, stdout=out)
            in_time = ended(p, timeout)
            stop(p)
            out.seek(0)
            text = out.read().decode(errors="replace").strip()
        if not in_time:
            raise Failed(f"not finished within {timeout:.0f} s: {self.log()}")
        if p.returncode != 0:
            raise Failed(f"it ended with status {p.returncode}: {self.log()}")
        return text

    def measure(self, argv, timeout, env=None):
        """Runs a measuring program; the last line of its output."""
        lines = self.run(argv, timeout, env).splitlines()
        if not lines:
            raise Failed(f"it printed no figures: {self.log()}")
        return lines[-1]


def on_a_port(start):
    """A port that was free may be taken a moment later: three are tried."""
    for attempt in range(3):
        try:
            return start(free_port())
        except Failed:
            if attempt == 2:
                raise


def redis(b):
    sock = b.path("redis.sock")
    p = b.start(["redis-server", "--port", "0", "--unixsocket", sock, "--unixsocketperm", "700", "--save", "", "--appendonly",
                 "no", "--maxmemory", "256mb", "--maxmemory-policy", "noeviction", "--dir", b.directory, "--daemonize", "no"])
    b.await_listening(p, sock)
    return sock


def beanstalkd(b):
    sock = b.path("beanstalkd.sock")
    p = b.start(["beanstalkd", "-l", "unix:" + sock], memory=512 << 20)
    b.await_listening(p, sock)
    return sock


def gearmand(b):
    def at(port):
        p = b.start(["gearmand", "--listen=127.0.0.1", f"--port={port}", "--log-file=stderr", "--threads=1", "--verbose=ERROR"],
                    memory=2 << 30)
        b.await_listening(p, port)
        return f"127.0.0.1:{port}"
    return on_a_port(at)


def nats(b):
    def at(port):
        with open(b.path("nats.conf"), "w") as f:
            f.write(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{b.directory}", max_memory_store: 256MB, '
                    "max_file_store: 1MB }\n")
        p = b.start(["nats-server", "-c", b.path("nats.conf")], env={"GOMEMLIMIT": "512MiB"})
        b.await_listening(p, port)
        return f"127.0.0.1:{port}"
    return on_a_port(at)


def rabbitmq(b):
    epmd_port = free_port()
    epmd = b.start(["epmd", "-port", str(epmd_port), "-address", "127.0.0.1"])
    b.await_listening(epmd, epmd_port)

    def at(port):
        with open(b.path("rabbitmq.conf"), "w") as f:
            f.write("vm_memory_high_watermark.absolute = 512MB\ndisk_free_limit.absolute = 1MB\nlog.console.level = error\n")
        with open(b.path("enabled_plugins"), "w") as f:
            f.write("[].\n")
        open(b.path("env.conf"), "w").close()
        env = {"HOME": b.directory, "ERL_EPMD_PORT": str(epmd_port), "ERL_EPMD_ADDRESS": "127.0.0.1",
               "ERL_AFLAGS": "-start_epmd false",  # ours, no daemon that stays
               "RABBITMQ_NODENAME": f"peer{port}@localhost", "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
               "RABBITMQ_NODE_PORT": str(port), "RABBITMQ_DIST_PORT": str(free_port()),
               "RABBITMQ_MNESIA_BASE": b.path("mnesia"), "RABBITMQ_LOG_BASE": b.directory, "RABBITMQ_LOGS": "-",
               "RABBITMQ_CONFIG_FILE": b.path("rabbitmq.conf"), "RABBITMQ_CONF_ENV_FILE": b.path("env.conf"),
               "RABBITMQ_ENABLED_PLUGINS_FILE": b.path("enabled_plugins"), "RABBITMQ_PID_FILE": b.path("rabbitmq.pid"),
               "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"}
        p = b.start(["/usr/lib/rabbitmq/bin/rabbitmq-server"], env=env)
        b.await_listening(p, port)
        return f"127.0.0.1:{port}"
    return on_a_port(at)
