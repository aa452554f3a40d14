"""What the benchmarks measure of two linked sites on this machine: each has a private cluster and one server, both use the same
cores, and so does the load."""

import contextlib
import pathlib
import socket
import sys
import threading
import time

from bench_postgres import measured_seconds
from bench_servers import Client, Server, encode
from bench_tests import CLIENTS, KEYS, MILLION, Measure, Test, load, own_benchmark

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("faults", "chaos")]

from cluster import LINK_SETTINGS, Cluster  # noqa: E402  (the path is set above)
from network import Proxies  # noqa: E402

LINK_SECONDS = 60
ARRIVAL_SECONDS = 300
POLL_SECONDS = 0.002
OUTAGE_SECONDS = 600
OUTAGE_MESSAGES = 5000       # a second, and a tenth of that in SETs
OUTAGE_TICK_SECONDS = 0.02
# --message-max-age, and the second that the promise allows.
STALE_SECONDS = 11.0


class Pair:
    """Two linked sites, "here" and "there". TCP proxies stand between them if there is a delay (in milliseconds, each way) or if
    they are asked for."""

    def __init__(self, settings, delay_ms=0, proxies=False):
        self.network = Proxies(2, 1) if delay_ms or proxies else None
        self.clusters, self.servers, self.delay_ms = [], [], delay_ms
        self.stack = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self.__exit__)
            for number in (1, 2):
                port = self.network.own_port(number) if self.network else None
                self.clusters.append(Cluster(port=port, links=True, **LINK_SETTINGS))
            for number, name in enumerate(("here", "there")):
                other = 1 - number
                peer = self.clusters[other].url(self.network.way(number + 1, other + 1)[1] if self.network else None)
                options = ["--site", name, "--peer", f"{('here', 'there')[other]}={peer}"]
                self.servers.append(Server("isthmus", settings.isthmus, self.clusters[number].socket_url(), settings.threads,
                                           options))
            undo.pop_all()

    def __enter__(self):
        try:
            if self.network:
                self.stack.enter_context(self.network.slowed(self.network.pairs(), self.delay_ms, 0))
            for server in self.servers:
                server.start()
            for number in (0, 1):
                self.arrives(self.servers[number], self.servers[1 - number], f"linked:{number}", LINK_SECONDS)
            self.await_links()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for server in reversed(self.servers):
            server.__exit__()
        for cluster in self.clusters:
            cluster.remove()
        self.stack.close()
        if self.network:
            self.network.stop()

    def await_links(self):
        """Until both servers call their link up: what arrives may be a copy of the state, which comes before the link."""
        deadline = time.monotonic() + LINK_SECONDS
        while not all(link_is_up(server) for server in self.servers):
            if time.monotonic() > deadline:
                raise RuntimeError(f"a link is not up after {LINK_SECONDS} s")
            time.sleep(POLL_SECONDS * 10)

    def arrives(self, source, target, key, patience=ARRIVAL_SECONDS):
        """Sets a key at one server and waits until the other has it, and so everything before it; gives the time when that was."""
        with Client(source.port) as writer, Client(target.port) as reader:
            writer.call("SET", key, "x")
            deadline = time.monotonic() + patience
            while reader.call("GET", key) is None:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"what one site wrote did not reach the other in {patience} s")
                time.sleep(POLL_SECONDS)
        return time.monotonic()


def link_is_up(server):
    with Client(server.port) as client:
        return any(line.startswith("peer_") and ":state=up," in line for line in client.call("INFO", "sites").splitlines())


def commands_done(server):
    with Client(server.port) as client:
        info = client.call("INFO", "stats")
    return int(next(line for line in info.splitlines() if line.startswith("total_commands_processed:")).partition(":")[2])


def publish_across(settings, pair, **options):
    """pubsub_load with its publishers here and its subscribers there. It fails if a message is lost, repeated or out of order."""
    here, there = pair.servers
    got = load(settings, here, subscribe_port=there.port, subscriber_pid=there.process.pid, **options)
    return {"delivered": got["delivered_per_second"], "p50": got["p50_ms"], "p99": got["p99_ms"], "p999": got["p999_ms"],
            "cpu": got["cpu_us_per_publish"], "cpu_subscriber": got["subscriber_cpu_us_per_publish"]}


def latency_test(delay_ms):
    """One publisher, one subscriber, 1,000 messages a second."""
    def run(settings, _):
        with Pair(settings, delay_ms) as pair:
            return publish_across(settings, pair, publishers=1, subscribers=1, rate=1000, seconds=measured_seconds(settings, 10))
    return run


def stream_test(settings, _):
    """As many messages as go, without a loss."""
    with Pair(settings) as pair:
        return publish_across(settings, pair, publishers=CLIENTS, subscribers=1, pipeline=16,
                              seconds=measured_seconds(settings, 10))


def changes_test(settings, _):
    """SETs here as fast as they go; the time ends when the last one is there."""
    with Pair(settings) as pair:
        here, there = pair.servers
        before, began = commands_done(here), time.monotonic()
        got = own_benchmark(settings, here, 16, ["SET"], measured_seconds(settings, 10))
        ended = time.monotonic()
        changes = commands_done(here) - before
        arrived = pair.arrives(here, there, "the end")
        return {"changes": changes / (arrived - began), "throughput": got["throughput"], "behind": arrived - ended}


def catch_up_test(settings, _):
    """A million SETs here while PostgreSQL there is down, over as many keys as other tests have."""
    with Pair(settings) as pair:
        here, there = pair.servers
        pair.clusters[1].stop()
        count = settings.scaled(MILLION)
        with Client(here.port) as client:
            client.load(count, lambda i: encode("SET", b"key:%012d" % (i % KEYS), b"%0100d" % i), b"+OK\r\n")
            client.call("SET", "the end", "x")
        pair.clusters[1].start()
        began = time.monotonic()
        arrived = pair.arrives(here, there, "behind the end")
        return {"changes": count / (arrived - began), "seconds": arrived - began}


class Listener(threading.Thread):
    """A subscriber that notes number and age of each message "NUMBER SENT"."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.stream = self.socket.makefile("rb")
        self.socket.sendall(encode("SUBSCRIBE", "outage"))
        for _ in range(6):
            self.stream.readline()
        self.numbers, self.stale = [], 0

    def run(self):
        # A message has seven lines, of which the last one is what was published.
        while lines := [line for line in (self.stream.readline() for _ in range(7)) if line]:
            number, sent = lines[-1].split()
            self.numbers.append(int(number))
            self.stale += time.monotonic() - float(sent) > STALE_SECONDS

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.join()
        self.stream.close()
        self.socket.close()


def publish_for(client, seconds, first):
    """Messages and SETs at an even rate; the number behind the last message."""
    count = int(OUTAGE_MESSAGES * OUTAGE_TICK_SECONDS)
    began, number, tick = time.monotonic(), first, 0
    while time.monotonic() - began < seconds:
        commands = [encode("PUBLISH", "outage", f"{number + i} {time.monotonic()}") for i in range(count)]
        commands += [encode("SET", f"key:{(tick * 10 + i) % KEYS}", tick) for i in range(count // 10)]
        client.socket.sendall(b"".join(commands))
        for _ in commands:
            client.stream.readline()
        number, tick = number + count, tick + 1
        time.sleep(max(0.0, began + tick * OUTAGE_TICK_SECONDS - time.monotonic()))
    return number


def outage_test(settings, _):
    """The network between the sites is cut while one of them publishes."""
    with Pair(settings, proxies=True) as pair, Client(pair.servers[0].port) as client:
        here, there = pair.servers
        listener = Listener(there.port)
        listener.start()
        number = publish_for(client, 2, 0)
        seconds = measured_seconds(settings, OUTAGE_SECONDS)
        with pair.network.cut(pair.network.pairs()):
            number = publish_for(client, seconds, number)
        healed, last = time.monotonic(), number
        arrived = pair.arrives(here, there, "behind the outage")
        number = publish_for(client, 2, number)
        pair.arrives(here, there, "the end")
        digests = []
        for server in pair.servers:
            with Client(server.port) as asker:
                digests.append(asker.call("DEBUG", "DIGEST"))
        listener.close()
        fresh = sum(n >= last for n in listener.numbers)
        return {"stale": listener.stale, "repeated": len(listener.numbers) - len(set(listener.numbers)),
                "lost": number - last - fresh, "different": float(digests[0] != digests[1]), "seconds": arrived - healed}


def all_tests():
    """Every test of two sites in the order of the table."""
    cpu = [Measure("cpu", "µs/PUBLISH", False), Measure("cpu_subscriber", "µs/PUBLISH", False)]
    sides = ("sites",)

    def latency(p50, p99):
        return [Measure("p50", "ms", False, limit=p50), Measure("p99", "ms", False, limit=p99), Measure("p999", "ms", False), *cpu]
    return [
        Test("sites.latency.1000", "PUBLISH at one site to a subscriber at the other at 1,000 messages/s", latency(3.0, 15.0),
             latency_test(0), sides=sides),
        Test("sites.latency.delayed", "the same with 50 ms each way between the sites (TCP proxies)", latency(55.0, None),
             latency_test(50), sides=sides),
        Test("sites.stream", f"PUBLISH of 100 bytes at one site to a subscriber at the other, {CLIENTS} publishers, pipeline 16",
             [Measure("delivered", "1/s", True, limit=80_000), Measure("p50", "ms", False), Measure("p99", "ms", False), *cpu],
             stream_test, sides=sides),
        Test("sites.changes", f"SET at one site, {CLIENTS} clients, pipeline 16, until all is at the other",
             [Measure("changes", "1/s", True, limit=80_000), Measure("throughput", "SET/s", True),
              Measure("behind", "s after the last SET", False)], changes_test, sides=sides),
        Test("sites.catchup", "1,000,000 SETs of 100 bytes, made while PostgreSQL of the other site was down",
             [Measure("changes", "1/s", True, limit=80_000), Measure("seconds", "s", False)], catch_up_test, sides=sides),
        Test("sites.outage", f"{OUTAGE_SECONDS} s without a network between the sites, at {OUTAGE_MESSAGES} messages/s",
             [Measure("stale", "messages", False, limit=0), Measure("repeated", "messages", False, limit=0),
              Measure("lost", "of those after it", False, limit=0), Measure("different", "states", False, limit=0),
              Measure("seconds", "s until all is there", False)], outage_test, sides=sides),
    ]
