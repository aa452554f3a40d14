"""A site of a chaos run: a PostgreSQL cluster, servers, their clocks, and an older copy of the database."""

import asyncio
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faults"))

from cluster import LINK_SETTINGS, Cluster, Server  # noqa: E402  (the path is set above)

HERE = pathlib.Path(__file__).resolve().parent
NAMES = ("amsterdam", "berlin", "chicago", "dakar", "edinburgh", "florence")
# Little WAL of its own, so that a copy of the cluster is soon made.
SETTINGS = {**LINK_SETTINGS, "min_wal_size": "32MB", "max_wal_size": "256MB", "shared_buffers": "32MB"}
# Clocks are compared with the databases' once a second, as long as the link is there; a message may be on its way for ten.
CLOCK_NOTICED_SECONDS = 60.0
STOP_SECONDS = 20.0
START_SECONDS = 60.0


class Clock:
    """What time it is for some processes (clock_offset.cpp). Their monotonic clock stays true."""

    def __init__(self, library, path):
        self.library, self.path, self.offset = library, path, 0.0
        self.swing, self.changed = 0.0, float("-inf")  # by how much it was changed last, and when on our clock
        path.write_bytes(bytes(8))
        path.chmod(0o644)

    def set(self, offset):
        """They are that many seconds ahead from now on, or behind."""
        if offset != self.offset:
            self.swing, self.changed = abs(offset - self.offset), time.monotonic()
            self.offset = offset
            with open(self.path, "r+b", buffering=0) as file:
                file.write(struct.pack("q", round(offset * 1e9)))

    def environment(self):
        # Sanitizers want to be loaded first, but do without.
        return {"LD_PRELOAD": str(self.library), "ISTHMUS_TEST_CLOCK": str(self.path),
                "ASAN_OPTIONS": "verify_asan_link_order=0:" + os.environ.get("ASAN_OPTIONS", "")}


def build_clock(folder):
    """The library for clocks."""
    library = folder / "clock_offset.so"
    subprocess.run([os.environ.get("CXX", "g++"), "-std=c++20", "-O2", "-shared", "-fPIC", str(HERE / "clock_offset.cpp"),
                    "-o", str(library)], check=True)
    return library


class SiteServer(Server):
    """A server in its site's network."""

    def __init__(self, site, number, binary, log, options):
        self.site = site
        with site.network.inside(site.number):
            super().__init__(f"{site.name}/{number}", binary, "", log, options)

    def launch(self):
        self.url = self.site.cluster.socket_url()
        with self.site.network.inside(self.site.number):
            super().launch()

    async def dial(self):
        with self.site.network.inside(self.site.number):
            door = socket.socket()
        try:
            door.setblocking(False)
            door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(door, ("127.0.0.1", self.port))
        except BaseException:
            door.close()
            raise
        return await asyncio.open_connection(sock=door)


class SiteCluster(Cluster):
    """A cluster in its site's network."""

    def __init__(self, site, admin_sql, **settings):
        self.site = site
        super().__init__(address=site.network.address(site.number), port=site.network.own_port(site.number), links=True,
                         admin_sql=admin_sql, **settings)

    def launch(self):
        with self.site.network.inside(self.site.number):
            super().launch()


class Site:
    """`number` counts from 1. `open` makes the cluster, `begin` starts the servers, `end` leaves nothing. `clock`: the library by
    which clocks can be set; None: they stay right."""

    def __init__(self, network, number, folder, clock):
        self.network, self.number, self.name, self.folder = network, number, NAMES[number - 1], folder
        self.cluster, self.servers = None, []
        self.copy = None         # the older copy of the database
        self.copied_at = None    # when we began to make it
        self.clock_library = clock
        self.clocks = []         # of PostgreSQL first, then of each server
        self.lock = asyncio.Lock()  # held by what does something to its processes
        self.clock_lock = asyncio.Lock()
        self.away = []           # (begin, end): when its database was away, with the time until the servers were back at it

    def open(self, binary, **settings):
        """`binary`: a server, which says what its role needs; `settings`: of its PostgreSQL, beside those of every run."""
        admin_sql = subprocess.run([binary, "--print-admin-sql"], check=True, capture_output=True, text=True).stdout
        self.cluster = SiteCluster(self, admin_sql, **{**SETTINGS, **settings})
        if self.clock_library:
            # From its next start on: the folder of the cluster is there only now.
            self.cluster.stop()
            self.cluster.environment = self.add_clock(self.cluster.folder / "clock").environment()
            self.cluster.start()

    def add_clock(self, path):
        clock = Clock(self.clock_library, path)
        self.clocks.append(clock)
        return clock

    def add_servers(self, count, binary, others, logs, options):
        """Makes `count` servers that know the `others`, and does not start them."""
        for number in range(1, count + 1):
            peers = []
            for other in others:
                peers += ["--peer", f"{other.name}={other.url_from(self)}"]
            server = SiteServer(self, number, binary, logs / f"{self.name}-{number}.log",
                                ["--site", self.name, *peers, "--notify-keyspace-events", "KA", *options])
            if self.clock_library:
                server.environment = self.add_clock(self.folder / f"clock-{self.name}-{number}").environment()
            self.servers.append(server)

    def url_from(self, site):
        """As another site reaches our PostgreSQL."""
        host, port = self.network.way(site.number, self.number)
        return f"postgresql://isthmus:{self.password()}@{host}:{port}/isthmus"

    def password(self):
        return self.cluster.password

    def offset(self):
        """The greatest offset of its clocks in seconds, without sign."""
        return max((abs(clock.offset) for clock in self.clocks), default=0.0)

    def swing(self, now):
        """How wrong others may be about its clocks: as much as they were changed a short time ago."""
        return max((clock.swing for clock in self.clocks if now - clock.changed < CLOCK_NOTICED_SECONDS), default=0.0)

    async def kill_servers(self):
        for server in self.servers:
            if server.process is not None and server.process.poll() is None:
                server.signal(signal.SIGCONT)
                server.signal(signal.SIGKILL)
                await asyncio.to_thread(server.process.wait)

    def launch_servers(self):
        for server in self.servers:
            server.launch()

    async def stop_database(self, mode):
        """False if that took too long, and it had to be ended otherwise."""
        self.cluster.request_stop(mode)
        try:
            await asyncio.wait_for(asyncio.to_thread(self.cluster.process.wait, STOP_SECONDS + 1), STOP_SECONDS)
            return True
        except (asyncio.TimeoutError, TimeoutError):
            self.cluster.request_stop("immediate")
            await asyncio.to_thread(self.cluster.process.wait)
            return False

    async def start_database(self):
        """Seconds until it took connections."""
        began = time.monotonic()
        self.cluster.launch()
        while not await asyncio.to_thread(self.cluster.is_ready):
            if self.cluster.process.poll() is not None or time.monotonic() - began > START_SECONDS:
                raise RuntimeError(f"PostgreSQL of {self.name} does not start:\n" + self.cluster.log_tail())
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    def make_copy(self):
        """Of the stopped cluster."""
        self.remove_copy()
        self.copy = self.cluster.folder / "copy"
        self.cluster.as_owner("cp", "-a", self.cluster.data, self.copy)

    def put_copy_back(self):
        """In the place of the stopped cluster. The copy is used up."""
        self.cluster.as_owner("rm", "-rf", self.cluster.data)
        self.cluster.as_owner("mv", self.copy, self.cluster.data)
        self.cluster.as_owner("rm", "-f", self.cluster.data / "postmaster.pid")
        self.copy = None

    def remove_copy(self):
        if self.copy is not None:
            shutil.rmtree(self.copy, ignore_errors=True)
            self.copy = None

    def end(self, logs):
        for server in self.servers:
            if server.process is not None and server.process.poll() is None:
                server.signal(signal.SIGCONT)
                server.signal(signal.SIGKILL)
                server.process.wait()
        if self.cluster is not None:
            if (self.cluster.folder / "postgres.log").exists():
                shutil.copy(self.cluster.folder / "postgres.log", logs / f"{self.name}-postgres.log")
            self.cluster.remove()
