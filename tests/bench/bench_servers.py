"""Starts and stops the servers that the benchmarks compare, each on a free port with a temporary folder of its own."""

import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time

READY = "Ready to accept connections"
START_PATIENCE_SECONDS = 120
STOP_PATIENCE_SECONDS = 30
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def free_port():
    """A TCP port of the loopback interface that nobody listened on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """One server process, started by `start`.

    `kind` is "redis" or "isthmus". `storage` is "memory" (nothing is stored), "durable" (every acknowledged write is
    flushed: `appendfsync always` or `sqlite:`), for redis only "rdb" (a snapshot when asked for one), or for Isthmus
    only the URL of a PostgreSQL database. `options` are further arguments of Isthmus.
    """

    def __init__(self, kind, binary, storage="memory", threads=None, options=()):
        self.kind = kind
        self.binary = binary
        self.storage = storage
        self.threads = threads
        self.options = list(options)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="isthmus-bench-"))
        self.port = None
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def command_line(self):
        """The arguments of a server on `self.port`."""
        if self.kind == "redis":
            line = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
            line += ["--save", "", "--maxclients", "15000"]
            if self.storage == "durable":
                line += ["--appendonly", "yes", "--appendfsync", "always"]
            return line
        backend = {"memory": "memory:", "durable": f"sqlite:{self.folder}/isthmus.db"}.get(self.storage, self.storage)
        line = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--backend", backend]
        line += ["--maxclients", "15000", "--log-level", "info"]
        if self.threads:
            line += ["--threads", str(self.threads)]
        if "://" in backend:
            line += ["--advertise", f"127.0.0.1:{self.port}"]
        return line + self.options

    def start(self):
        """Starts it and returns the seconds until it was ready and had answered a PING."""
        self.port = self.port or free_port()
        began = time.monotonic()
        self.process = subprocess.Popen(self.command_line(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, cwd=self.folder)
        killer = threading.Timer(START_PATIENCE_SECONDS, self.process.kill)
        killer.start()
        said = []
        for line in self.process.stdout:
            said.append(line.decode(errors="replace"))
            if READY in said[-1]:
                break
        else:
            self.process.wait()
            raise RuntimeError(f"{self.kind} did not start:\n" + "".join(said))
        killer.cancel()
        with Client(self.port) as client:
            client.call("PING")
        elapsed = time.monotonic() - began
        # Somebody must go on reading, or a talkative server would wait for its own log.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        return elapsed

    def stop(self):
        """SIGTERM, and SIGKILL if that takes too long."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def cpu_seconds(self):
        """User and system time of all its threads so far."""
        words = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / TICKS_PER_SECOND

    def resident_bytes(self):
        """Resident memory."""
        return int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES


class Client:
    """A connection for loading data and asking simple questions. No replies but simple ones, numbers and strings."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.socket.close()

    def call(self, *words):
        """Sends one command and returns its reply as text, a number or None; an error reply is an exception."""
        self.socket.sendall(encode(*words))
        line = self.stream.readline()
        if not line.endswith(b"\r\n"):
            raise RuntimeError("the server closed the connection")
        kind, rest = line[:1], line[1:-2].decode(errors="replace")
        if kind == b"-":
            raise RuntimeError(f"{words[0]} was refused: {rest}")
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self.stream.read(size + 2)[:-2].decode(errors="replace")
        return rest

    def load(self, count, make_command, reply, chunk=10_000):
        """Sends make_command(0) … make_command(count - 1), each of which must be answered by exactly `reply`."""
        for begin in range(0, count, chunk):
            end = min(begin + chunk, count)
            self.socket.sendall(b"".join(make_command(i) for i in range(begin, end)))
            wanted = reply * (end - begin)
            got = self.stream.read(len(wanted))
            if got != wanted:
                raise RuntimeError(f"loading was answered {got[:100]!r}")


def encode(*words):
    """A request in RESP."""
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
