"""A private PostgreSQL cluster in a folder of its own, and the processes of a site on it. All end with this process, however
that ends; they are ended by their own process ids.

Made for tests/faults and tests/bench. Only the main thread may start processes: the kernel ends a child with the thread
that started it.
"""

import asyncio
import ctypes
import errno
import functools
import itertools
import os
import pathlib
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

PROGRAMS = pathlib.Path(os.environ.get("ISTHMUS_POSTGRESQL", "/usr/lib/postgresql/15/bin"))
# Builds for other programs' tests bring no clients along.
TOOLS = PROGRAMS if (PROGRAMS / "psql").exists() else pathlib.Path("/usr/lib/postgresql/15/bin")
START_SECONDS = 60
# What a cluster needs beside what every site needs to follow several other sites: workers, links that are tried again soon, and a
# bound for the WAL that a peer who is gone may keep.
LINK_SETTINGS = {"max_logical_replication_workers": 20, "max_worker_processes": 30, "wal_retrieve_retry_interval": "200ms",
                 "max_slot_wal_keep_size": "1GB"}
READY = b"Ready to accept connections"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None)
# Below 32768, from where on the kernel gives ports away (ip_local_port_range). tests/support/ports.hpp has the same blocks.
FIRST_PORT, PORTS_OF_BLOCK, PORT_BLOCKS = 10_000, 500, 44


def end_with_parent(number):
    """For preexec_fn: the kernel sends this signal when the thread that started the child is gone."""
    return lambda: LIBC.prctl(PR_SET_PDEATHSIG, number)


def bound_socket(port):
    """A socket bound to the port of the loopback interface, or None if that is taken. Without SO_REUSEADDR, so that what
    connections have left behind counts as well."""
    bound = socket.socket()
    try:
        bound.bind(("127.0.0.1", port))
    except OSError as error:
        bound.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return bound


@functools.cache
def port_block():
    """(socket, ports) of a block that belongs to this process: it holds the socket, and with it the first port, until it ends.
    The ports come in turn, without an end."""
    for i in range(PORT_BLOCKS):
        first = FIRST_PORT + (os.getpid() + i) % PORT_BLOCKS * PORTS_OF_BLOCK
        if held := bound_socket(first):
            return held, itertools.cycle(range(first + 1, first + PORTS_OF_BLOCK))
    raise RuntimeError("every block of ports has a process")


def free_port():
    """A TCP port of the loopback interface that nobody listens on, and that nobody takes before the server begins or while it
    begins again: neither the kernel for somebody who wants any port, nor another process of tests."""
    for port in itertools.islice(port_block()[1], PORTS_OF_BLOCK - 1):
        if probe := bound_socket(port):
            probe.close()
            return port
    raise RuntimeError("no port of the block is free")


class Cluster:
    """A cluster with the database and role `isthmus`. The role has a random password, which TCP connections must show; the
    Unix socket is for those who may enter the folder. Source of the settings: what a site needs (wal_level) and nothing that
    makes commits less safe. `address`: a further IP address to listen on, for whoever has one in the same /24; `links`: the
    role may subscribe to other sites; as an administrator lets it with `admin_sql` (what `isthmus --print-admin-sql` prints) or,
    from PostgreSQL 16 on, membership in a role; without that text as a superuser."""

    def __init__(self, address=None, port=None, links=False, admin_sql=None, **settings):
        self.address, self.links, self.admin_sql = address, links, admin_sql
        self.environment = {}  # of the server's process, beside ours
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="isthmus-postgres-", dir="/tmp"))
        self.data = self.folder / "data"
        self.socket_folder = self.folder / "socket"
        self.port = port or free_port()
        self.password = secrets.token_hex(12)
        self.process = None
        self.settings = {"wal_level": "logical", "max_wal_senders": 30, "max_replication_slots": 30,
                         "unix_socket_directories": self.socket_folder, "listen_addresses": ",".join(self.addresses()), "port": self.port,
                         "log_line_prefix": "%m [%p] %a ", **settings}
        # initdb and postgres refuse to be root.
        self.user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        self.make()

    def addresses(self):
        return ["127.0.0.1"] + ([self.address] if self.address else [])

    def make(self):
        """initdb, and who may connect how."""
        if self.user:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self.run("initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8",
                 "--no-instructions")
        self.as_owner("mkdir", "-m", "700", self.socket_folder)
        hosts = ["127.0.0.1/32"] + ([f"{self.address}/24"] if self.address else [])
        (self.data / "pg_hba.conf").write_text("local all all trust\n" + "".join(
            f"host all all {host} scram-sha-256\n" for host in hosts))
        self.start()
        superuser = "SUPERUSER" if self.links and not self.admin_sql else ""
        self.sql(f"CREATE ROLE isthmus LOGIN REPLICATION {superuser} PASSWORD '{self.password}'", "postgres")
        self.sql("CREATE DATABASE isthmus OWNER isthmus", "postgres")
        if self.admin_sql and int(self.sql("SHOW server_version_num")) >= 160000:
            self.sql("GRANT pg_create_subscription TO isthmus")
        elif self.admin_sql:
            self.psql("isthmus", "postgres", "-v", "role=isthmus", text=self.admin_sql)

    def as_owner(self, *command):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, cwd="/",
                              **self.user)
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def run(self, program, *arguments):
        return self.as_owner(PROGRAMS / program, *arguments)

    def launch(self):
        """Starts the server and does not wait for it."""
        command = [str(PROGRAMS / "postgres"), "-D", str(self.data)]
        for name, value in self.settings.items():
            command += ["-c", f"{name}={value}"]
        with open(self.folder / "postgres.log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                            env={**os.environ, **self.environment},
                                            preexec_fn=end_with_parent(signal.SIGQUIT), **self.user)

    def is_ready(self):
        """Whether it takes connections."""
        return subprocess.run([str(TOOLS / "pg_isready"), "-q", "-h", str(self.socket_folder), "-p", str(self.port)],
                              check=False).returncode == 0

    def start(self):
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL does not start:\n" + self.log_tail())
            time.sleep(0.02)

    def request_stop(self, mode):
        """Tells it to stop, as `pg_ctl stop -m MODE` does, without waiting."""
        self.process.send_signal({"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])

    def stop(self, mode="fast"):
        if self.process is not None and self.process.poll() is None:
            self.request_stop(mode)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait()
        self.process = None

    def remove(self):
        """Stops it and removes its folder."""
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def sql(self, statement, database="isthmus", user="postgres"):
        """Runs it by psql; its output without decoration, fields separated by the byte 0x1f."""
        return self.psql(database, user, "-c", statement)

    def psql(self, database, user, *options, text=None):
        """`text`: for its standard input."""
        command = [str(TOOLS / "psql"), "-X", "-q", "-A", "-t", "-F", "\x1f", "-v", "ON_ERROR_STOP=1", "-h",
                   str(self.socket_folder), "-p", str(self.port), "-U", user, "-d", database, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, input=text)
        if done.returncode != 0:
            raise RuntimeError(f"psql: {done.stderr.strip()}")
        return done.stdout

    def rows(self, statement):
        return [line.split("\x1f") for line in self.sql(statement).splitlines()]

    def url(self, port=None):
        """For --backend: over TCP with the password, through `port` if there is something between."""
        return f"postgresql://isthmus:{self.password}@127.0.0.1:{port or self.port}/isthmus"

    def socket_url(self):
        """For --backend: by the Unix socket."""
        return f"postgresql://isthmus@/isthmus?host={self.socket_folder}&port={self.port}"

    def cpu_seconds(self):
        """User and system time of all its processes, those that have ended included."""
        ticks = 0
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in [self.process.pid, *map(int, children)]:
            try:
                words = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            # utime, stime; of the parent also cutime and cstime: children that it has waited for.
            ticks += sum(map(int, words[11:15] if pid == self.process.pid else words[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def log_tail(self, lines=20):
        path = self.folder / "postgres.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


class Proxy:
    """What a server reaches its database through, as a process of its own (see proxy.py)."""

    def __init__(self, upstream_port):
        script = pathlib.Path(__file__).resolve().parent / "proxy.py"
        self.process = subprocess.Popen([sys.executable, str(script), str(upstream_port)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent(signal.SIGKILL))
        self.port = int(self.process.stdout.readline())

    def tell(self, word):
        """"pass", "cut" or "stall"; returns when it is so."""
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def stop(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Server:
    """One Isthmus of the site, on a port that stays the same over its restarts."""

    def __init__(self, name, binary, url, log, options=()):
        self.name, self.binary, self.url, self.log, self.options = name, binary, url, pathlib.Path(log), list(options)
        self.port = free_port()
        self.process = None
        self.environment = {}  # of the process, beside ours
        self.may_end = True  # somebody is just ending it
        self.log_begin = 0   # where the log of this process begins

    def launch(self):
        """Starts it and does not wait for it."""
        command = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--backend", self.url, "--advertise",
                   f"127.0.0.1:{self.port}", *self.options]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ISTHMUS_")} | self.environment
        with open(self.log, "ab") as log:
            self.log_begin = log.tell()
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                                            preexec_fn=end_with_parent(signal.SIGKILL))
        self.may_end = False

    async def dial(self):
        """A connection to it: (reader, writer)."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    def signal(self, number):
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.may_end = True
        self.process.send_signal(number)

    def was_ready(self):
        """Whether this process has ever taken connections."""
        with open(self.log, "rb") as log:
            log.seek(self.log_begin)
            return READY in log.read()

    def ended_by_itself(self):
        return self.process is not None and not self.may_end and self.process.poll() is not None
