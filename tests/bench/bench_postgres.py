"""What the benchmarks measure of servers on PostgreSQL: each test makes a private cluster and one or two servers on it, beside
redis-server or beside `memory:`."""

import pathlib
import sys
import time

from bench_servers import Client, Server, encode
from bench_tests import CLIENTS, KEYS, MILLION, Measure, Test, benchmark, load, load_strings, own_benchmark, start

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faults"))

from cluster import Cluster  # noqa: E402  (the path is set above)

# Quiet: server and database use less than this share of a core, twice in a row; their housekeeping takes some 2 %.
QUIET_SHARE = 0.05
QUIET_SECONDS = 0.5
SETTLE_SECONDS = 120


class Site:
    """A cluster and servers on it, the first of which is the writer. They reach it by its Unix socket."""

    def __init__(self, settings, count=1, options=()):
        self.cluster = Cluster()
        self.servers = []
        for _ in range(count):
            server = Server("isthmus", settings.isthmus, self.cluster.socket_url(), settings.threads, options)
            self.servers.append(server)

    def __enter__(self):
        try:
            for server in self.servers:
                server.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for server in reversed(self.servers):
            server.__exit__()
        self.cluster.remove()

    @property
    def sql_pid(self):
        return self.cluster.process.pid

    def cpu_seconds(self):
        return self.cluster.cpu_seconds() + sum(server.cpu_seconds() for server in self.servers)

    def settle(self):
        """Waits until checkpoint and housekeeping have nothing left to do."""
        deadline, quiet = time.monotonic() + SETTLE_SECONDS, 0
        while quiet < 2 and time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(QUIET_SECONDS)
            quiet = quiet + 1 if self.cpu_seconds() - before < QUIET_SHARE * QUIET_SECONDS else 0


def measured_seconds(settings, full):
    return full / 10 if settings.quick else full


def commands(settings, server, words, pipeline, requests, cluster=None, keys=KEYS):
    """One run of the chosen generator, with the CPU time of the server and, apart, of the database."""
    if settings.command_load:
        more = {"sql_pid": cluster.process.pid} if cluster else {}
        result = own_benchmark(settings, server, pipeline, words, measured_seconds(settings, 4), keys=keys, **more)
        return result if cluster else without_sql(result)
    benchmark(settings, server, max(requests // 10, 1000), pipeline, words)
    before, sql_before = server.cpu_seconds(), cluster.cpu_seconds() if cluster else 0
    result = benchmark(settings, server, requests, pipeline, words)
    result["cpu"] = (server.cpu_seconds() - before) * 1e6 / requests
    if cluster:
        result["cpu_sql"] = (cluster.cpu_seconds() - sql_before) * 1e6 / requests
    return result


def without_sql(figures):
    """Of a side that has neither database nor second server."""
    return {name: value for name, value in figures.items() if name not in ("cpu_sql", "cpu_subscriber")}


def fill(server, count):
    with Client(server.port) as client:
        client.load(count, lambda i: encode("SET", b"key:%012d" % i, b"xxx"), b"+OK\r\n")


def command_test(words, pipeline, full_requests, other_storage):
    """The same command on a server on PostgreSQL and, as `kind` says, on another one."""
    def run(settings, kind):
        requests = settings.scaled(full_requests)
        if kind == "postgresql":
            with Site(settings) as site:
                if words[0] == "GET":
                    fill(site.servers[0], KEYS)
                    site.settle()
                return commands(settings, site.servers[0], words, pipeline, requests, site.cluster)
        with start(settings, "redis" if kind == "redis" else "isthmus", other_storage[kind]) as server:
            if words[0] == "GET":
                fill(server, KEYS)
            return commands(settings, server, words, pipeline, requests)
    return run


def two_servers(settings, site, **options):
    """pubsub_load with its publishers at the second server, which is not the writer, and its subscribers at the first."""
    subscribed, publishing = site.servers
    return load(settings, publishing, subscribe_port=subscribed.port, subscriber_pid=subscribed.process.pid,
                sql_pid=site.sql_pid, **options)


def pubsub_figures(got):
    return {"delivered": got["delivered_per_second"], "p50": got["p50_ms"], "p99": got["p99_ms"], "p999": got["p999_ms"],
            "cpu": got["cpu_us_per_publish"], "cpu_subscriber": got["subscriber_cpu_us_per_publish"],
            "cpu_sql": got["sql_cpu_us_per_publish"]}


def latency_test(settings, kind):
    """One publisher, one subscriber, 1,000 messages a second."""
    seconds = measured_seconds(settings, 10)
    if kind == "redis":
        with start(settings, "redis") as server:
            return without_sql(pubsub_figures(load(settings, server, publishers=1, subscribers=1, rate=1000, seconds=seconds)))
    with Site(settings, 2) as site:
        return pubsub_figures(two_servers(settings, site, publishers=1, subscribers=1, rate=1000, seconds=seconds))


def stream_test(acknowledge):
    """As many messages as go, for ten seconds, without a loss."""
    def run(settings, kind):
        load_options = {"publishers": CLIENTS, "subscribers": 1, "pipeline": 16, "seconds": measured_seconds(settings, 10)}
        if kind == "redis":
            with start(settings, "redis") as server:
                return without_sql(pubsub_figures(load(settings, server, **load_options)))
        with Site(settings, 2, ["--publish-ack", acknowledge]) as site:
            return pubsub_figures(two_servers(settings, site, **load_options))
    return run


def startup_test(settings, kind):
    """From the start of the process to the answer to a PING, with a million strings: with the log not yet in the checkpoint
    (after a kill), and with all in it."""
    count = settings.scaled(MILLION)
    with Site(settings) as site:
        server = site.servers[0]
        with Client(server.port) as client:
            load_strings(client, count, 3)
        server.process.kill()
        server.process.wait()
        killed = server.start()
        site.settle()
        server.stop()
        ready = server.start()
        with Client(server.port) as client:
            if client.call("DBSIZE") != count:
                raise RuntimeError("not all keys came back")
        return {"killed": killed, "ready": ready, "resident": server.resident_bytes() / 2**20}


def checkpoint_test(pipeline, rate):
    """SETs of keys among a thousand, which give the checkpoint next to nothing to write, beside SETs of keys among a million;
    the million is there, and in the checkpoint, in both cases."""
    def run(settings, kind):
        count = settings.scaled(MILLION)
        with Site(settings) as site:
            fill(site.servers[0], count)
            site.settle()
            return own_benchmark(settings, site.servers[0], pipeline, ["SET"], measured_seconds(settings, 20),
                                 keys=1000 if kind == "few keys" else count, sql_pid=site.sql_pid, rate=rate)
    return run


def all_tests():
    """Every test on PostgreSQL in the order of the table."""
    cpu = [Measure("cpu", "µs/command", False), Measure("cpu_sql", "µs/command", False)]
    latency = [Measure("p50", "ms", False), Measure("p99", "ms", False)]
    set_words, get_words = ["SET", "key:__rand_int__", "xxx"], ["GET", "key:__rand_int__"]
    storages = {"redis": "durable", "memory": "memory"}
    tests = []
    for pipeline, requests in ((1, 200_000), (16, 1_000_000)):
        tests.append(Test(f"pg.set.p{pipeline}", f"durable SET, {CLIENTS} clients, pipeline {pipeline}, beside appendfsync always "
                          "and memory:", [Measure("throughput", "1/s", True, 1.0), *latency, *cpu],
                          command_test(set_words, pipeline, requests, storages), sides=("redis", "memory", "postgresql")))
    for pipeline, requests in ((1, 300_000), (16, 2_000_000)):
        tests.append(Test(f"pg.get.p{pipeline}", f"GET, {CLIENTS} clients, pipeline {pipeline}, beside memory:",
                          [Measure("throughput", "1/s", True, 0.95), *latency, *cpu],
                          command_test(get_words, pipeline, requests, storages), sides=("memory", "postgresql")))
    pubsub_cpu = [Measure(name, "µs/PUBLISH", False) for name in ("cpu", "cpu_subscriber", "cpu_sql")]
    tests.append(Test("pg.latency.1000", "PUBLISH on one server to a subscriber on the other at 1,000 messages/s; redis is one",
                      [Measure("p50", "ms", False, limit=2.0), Measure("p99", "ms", False, limit=10.0),
                       Measure("p999", "ms", False), *pubsub_cpu], latency_test, sides=("redis", "postgresql")))
    for acknowledge in ("commit", "accept"):
        tests.append(Test(f"pg.stream.{acknowledge}", "PUBLISH of 100 bytes on one server to a subscriber on the other, "
                          f"{CLIENTS} publishers, pipeline 16, --publish-ack {acknowledge}; redis is one",
                          [Measure("delivered", "1/s", True, limit=100_000), *latency, *pubsub_cpu],
                          stream_test(acknowledge), sides=("redis", "postgresql")))
    tests.append(Test("pg.startup", "start with 1,000,000 strings, after kill -9 behind the load, and with all in the checkpoint",
                      [Measure("killed", "s", False, limit=5.0), Measure("ready", "s", False, limit=5.0),
                       Measure("resident", "MiB", False)], startup_test, sides=("postgresql",)))
    for name, pipeline, rate, wanted in (("pg.checkpoint.20000", 1, 20_000, 0.8), ("pg.checkpoint.p16", 16, 0, 0.8)):
        tests.append(Test(name, f"SET {'at 20,000/s' if rate else 'as fast as it goes'}, pipeline {pipeline}, keys among a "
                          "thousand and among a million: what the checkpoint costs writers",
                          [Measure("throughput", "1/s", True, wanted), *latency, *cpu],
                          checkpoint_test(pipeline, rate), sides=("few keys", "million keys")))
    return tests
