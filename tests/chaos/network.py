"""The network between the sites of a chaos run. Where root allows, each site lives in a network namespace of its own and router.py
carries the packets between them; else each site reaches each other one through a TCP proxy of its own (proxies.py). Both can cut,
delay and lose, each direction for itself.

The namespaces have no names and end with the last process in them, so nothing is left behind, however a run ends. Sites are
numbered from 1.
"""

import contextlib
import ctypes
import fcntl
import os
import pathlib
import socket
import struct
import subprocess
import sys
import signal

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faults"))

from cluster import end_with_parent, free_port  # noqa: E402  (the path is set above)

HERE = pathlib.Path(__file__).resolve().parent
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000                                                                 # sched.h
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000                                # linux/if_tun.h
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFMTU = 0x8914, 0x8916, 0x891C, 0x8922    # linux/sockios.h
IFF_UP = 1
# As large as IPv4 allows: fewer packets for a router in Python.
MTU_BYTES = 65000
POSTGRES_PORT = 5432
FIRST = -15  # sched(7), "The nice value"


class Unavailable(Exception):
    """This machine does not let us make network namespaces."""


def make_network(kind, sites, seed):
    """A network for so many sites: "namespaces", "proxies", or whichever can be had ("auto")."""
    if kind != "proxies":
        try:
            return Namespaces(sites, seed)
        except Unavailable:
            if kind == "namespaces":
                raise
    return Proxies(sites, seed)


def put_first(process):
    """Lets that process (0: this one, but none that it starts) run before others, where root allows: sites that have much to do must
    not slow down the network, the clients and those who watch."""
    with contextlib.suppress(OSError):
        if process == 0:
            os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, process, FIRST)


class Network:
    """What both kinds share: the state of each direction, from cuts and slow links that overlap."""

    def __init__(self, sites):
        self.sites = range(1, sites + 1)
        self.cuts = []   # sets of (from, to)
        self.slow = []   # ({(from, to)}, delay in ms, loss)
        self.told = {}
        self.carrier = None

    def pairs(self):
        return [(a, b) for a in self.sites for b in self.sites if a != b]

    @contextlib.contextmanager
    def cut(self, directions):
        """While this lasts, nothing passes in these directions."""
        entry = set(directions)
        self.cuts.append(entry)
        self.apply()
        try:
            yield
        finally:
            self.cuts.remove(entry)
            self.apply()

    @contextlib.contextmanager
    def slowed(self, directions, delay_ms, loss):
        entry = (set(directions), delay_ms, loss)
        self.slow.append(entry)
        self.apply()
        try:
            yield
        finally:
            self.slow.remove(entry)
            self.apply()

    def apply(self):
        lines = []
        for pair in self.pairs():
            if any(pair in cut for cut in self.cuts):
                words = "cut"
            else:
                found = [(delay, loss) for directions, delay, loss in self.slow if pair in directions]
                words = f"pass {max((d for d, _ in found), default=0)} {max((l for _, l in found), default=0)}"
            if self.told.get(pair, "pass 0 0") != words:
                self.told[pair] = words
                lines.append(f"{pair[0]} {pair[1]} {words}\n")
        self.tell(lines)

    def tell(self, lines):
        """All at once: whoever waits here for an answer keeps all clients waiting, and a carrier that has just been told to pass has
        more to do than to listen."""
        self.carrier.stdin.write("".join(lines))
        self.carrier.stdin.flush()
        for _ in lines:
            self.carrier.stdout.readline()

    def whole(self):
        return not self.cuts

    def launch(self, script, *arguments, pass_fds=()):
        carrier = subprocess.Popen([sys.executable, str(HERE / script), *map(str, arguments)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True, pass_fds=pass_fds, preexec_fn=end_with_parent(signal.SIGKILL))
        put_first(carrier.pid)
        return carrier

    def stop(self):
        if self.carrier is not None:
            self.carrier.kill()
            self.carrier.wait()
            self.carrier.stdin.close()
            self.carrier.stdout.close()


class Namespaces(Network):
    """A namespace and a TUN device for each site."""

    kind = "network namespaces"

    def __init__(self, sites, seed):
        super().__init__(sites)
        self.home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.spaces, devices = {}, []
        try:
            for site in self.sites:
                devices.append(self.make_space(site))
        except OSError as error:
            raise Unavailable(str(error)) from None
        finally:
            LIBC.setns(self.home, CLONE_NEWNET)
        self.carrier = self.launch("router.py", seed, *devices, pass_fds=devices)
        for device in devices:
            os.close(device)

    def make_space(self, site):
        """Enters a new namespace and gives its TUN device."""
        if LIBC.unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        self.spaces[site] = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"site", IFF_TUN | IFF_NO_PI))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for name, address, mask in ((b"lo", None, None), (b"site", self.address(site), "255.255.255.0")):
                if address:
                    for request, text in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, mask)):
                        where = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))
                        fcntl.ioctl(control, request, struct.pack("16s16s8x", name, where))
                    fcntl.ioctl(control, SIOCSIFMTU, struct.pack("16si20x", name, MTU_BYTES))
                fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", name, IFF_UP))
        return device

    @contextlib.contextmanager
    def inside(self, site):
        """What this thread starts or opens meanwhile belongs to the site. Nothing may be awaited in it."""
        if LIBC.setns(self.spaces[site], CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            LIBC.setns(self.home, CLONE_NEWNET)

    def address(self, site):
        """Under which other sites know it; None if they share one."""
        return f"10.77.0.{site}"

    def own_port(self, _):
        """Of the site's PostgreSQL."""
        return POSTGRES_PORT

    def way(self, _, to):
        """Host and port under which a site reaches another one's PostgreSQL."""
        return self.address(to), POSTGRES_PORT


class Proxies(Network):
    """One machine, and a proxy for each way."""

    kind = "TCP proxies"

    def __init__(self, sites, seed):
        super().__init__(sites)
        self.own = {site: free_port() for site in self.sites}
        self.carrier = self.launch("proxies.py", seed, *(f"{a}:{b}:{self.own[b]}" for a, b in self.pairs()))
        self.ways = {pair: int(self.carrier.stdout.readline()) for pair in self.pairs()}

    @contextlib.contextmanager
    def inside(self, _):
        yield

    def address(self, _):
        return None

    def own_port(self, site):
        return self.own[site]

    def way(self, of, to):
        return "127.0.0.1", self.ways[of, to]
