"""Starts and stops the servers that are compared: each on a free port, in a temp folder of its own.

A server is ready when it says so in its log; nothing waits a fixed time. Processes are ended by their own pid.
"""

import argparse
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import sites
from cluster import free_port  # (sites has set the path)

# Values of --backend beside memory: and sqlite: (which is a file in the folder of the server). What is compared with redis-server is
# the writer of a site of one server, or the second server of a site, which forwards to the first what changes state.
POSTGRESQL = "postgresql:"
FOLLOWER = "postgresql:follower"
BACKENDS = f"memory:, sqlite: (in a temp folder), {POSTGRESQL} or {FOLLOWER} (a private cluster)"
READY = b"Ready to accept connections"
WRITER = b"This server is the writer of its site"
START_SECONDS = 60
STOP_SECONDS = 10
# What a sanitizer or a failed check of ours writes before the end.
BROKEN_LOG = re.compile(r"runtime error:|Sanitizer|terminate called|Assertion .* failed")


PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None)


def end_with_parent():
    """In a child before exec: the kernel ends it when the process that started it is gone, however that came about."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# SIGTERM leaves by way of every `finally`, so servers end and their folders go.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def argument_parser(description, backend=True):
    """Of a script that compares our server: its --server and, where that may be chosen, --backend; other options can be added."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    # Servers run in folders of their own, so the path is made absolute.
    parser.add_argument("--server", default="build/release/isthmus", type=lambda path: path if path == "redis" else os.path.abspath(path),
                        help='path of our server, or "redis" where that makes sense (default %(default)s)')
    if backend:
        parser.add_argument("--backend", default="memory:", help=f"{BACKENDS} (default %(default)s)")
    return parser


class StartError(Exception):
    """The server did not get ready."""


class Server:
    """A running server. `program` is "redis" for Debian's redis-server, else the path of an Isthmus executable. Of a site of two
    servers this is the follower, and ends both."""

    def __init__(self, program, backend="memory:", password=None, options=()):
        self.program = program
        self.backend = backend
        self.password = password
        self.options = list(options)
        self.directory = tempfile.mkdtemp(prefix="isthmus-compat-")
        self.process = None
        self.port = 0
        self.log = []
        self.secret = None  # what no log line may show
        self.writer = None  # the other server of the site
        if not self.is_redis() and backend in (POSTGRESQL, FOLLOWER):
            self._start_in_site(follow=backend == FOLLOWER)
        else:
            self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def is_redis(self):
        return self.program == "redis"

    def _start_in_site(self, follow):
        self.backend, self.secret = sites.new_database()
        try:
            if follow:
                self.writer = Server(self.program, self.backend, self.password, self.options)
                self.writer.secret = self.secret
                self.writer.await_log(WRITER)
            self.start()
            if not follow:
                self.await_log(WRITER)
        except BaseException:
            self.stop()
            raise

    def await_log(self, text):
        if not wait_until(lambda: any(text in line for line in list(self.log)), START_SECONDS):
            raise StartError(f"{self.program} does not say {text.decode()}:\n{self.log_tail()}")

    def _arguments(self):
        if self.is_redis():
            # hz: expired keys are found soon, as ours promises. The debug command is wanted for DEBUG SLEEP.
            args = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory, "--save", "",
                    "--appendonly", "no", "--hz", "500", "--dynamic-hz", "no", "--enable-debug-command", "yes",
                    "--daemonize", "no"]
        else:
            backend = self.backend
            if backend.startswith("sqlite:"):
                backend = "sqlite:" + os.path.join(self.directory, "isthmus.db")
            args = [self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--backend", backend]
        if self.password:
            args += ["--requirepass", self.password]
        return args + self.options

    def start(self):
        for _ in range(5):
            self.port = free_port()
            if self._try_start():
                return
        tail = self.log_tail()
        self.stop()
        raise StartError(f"{self.program} did not start:\n{tail}")

    def kill_and_restart(self):
        """Ends the process without a warning, and starts it again on the same port and the same data."""
        self.process.kill()
        self.process.wait()
        self.follower.join(2)
        for _ in range(5):
            self.log.clear()
            if self._try_start():
                return
        raise StartError(f"{self.program} did not start again:\n{self.log_tail()}")

    def _try_start(self):
        ready = threading.Event()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ISTHMUS_")}
        self.process = subprocess.Popen(self._arguments(), cwd=self.directory, env=environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=end_with_parent)
        process = self.process

        def follow():
            for line in process.stdout:
                self.log.append(line)
                if READY in line:
                    ready.set()
            ready.set()

        self.follower = threading.Thread(target=follow, daemon=True)
        self.follower.start()
        ready.wait(START_SECONDS)
        if process.poll() is None and any(READY in line for line in list(self.log)):
            return True
        # One that is only slow would hold the lock of the database that the next one wants.
        process.kill()
        process.wait()
        self.follower.join(2)
        return False

    def alive(self):
        """Whether it runs, and the other one of its site."""
        return self.process is not None and self.process.poll() is None and (self.writer is None or self.writer.alive())

    def log_tail(self, lines=25):
        tail = b"".join(self.log[-lines:]).decode(errors="replace")
        return tail if self.writer is None else f"{tail}the writer:\n{self.writer.log_tail(lines)}"

    def complaints(self):
        """Lines of the log that say that the server has a fault of its own."""
        lines = [line.decode(errors="replace").rstrip() for line in list(self.log)]
        found = [line for line in lines if BROKEN_LOG.search(line)]
        found += [f"the password: {line}" for line in lines if self.secret and self.secret in line]
        return found if self.writer is None else found + self.writer.complaints()

    def stop(self, remove=True):
        """Ends the process and removes its folder. Gives the exit status, or None when it had to be killed."""
        status = None
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
            try:
                status = self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.follower.join(2)
            self.process.stdout.close()
            self.process = None
        if self.writer is not None:
            self.writer.stop()
            self.writer = None
        if remove:
            shutil.rmtree(self.directory, ignore_errors=True)
        return status


def wait_until(condition, seconds=5.0, pause=0.005):
    """Asks until the condition gives something true, and gives that; None at the deadline. For states of a process that
    have no event to await."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            return None
        time.sleep(pause)
