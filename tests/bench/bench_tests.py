"""What the benchmarks measure: each function takes a started server (or makes one) and returns {measure: value}."""

import csv
import dataclasses
import json
import subprocess
from typing import Callable

from bench_servers import Client, Server, encode

CLIENTS = 50
KEYS = 100_000  # key space of SET, GET and HSET
MILLION = 1_000_000


@dataclasses.dataclass
class Settings:
    """What the command line chose."""
    redis_server: str
    isthmus: str
    redis_benchmark: str
    pubsub_load: str
    command_load: str | None = None  # the generator of SET, GET and HSET; redis-benchmark if None
    quick: bool = False
    threads: int | None = None       # I/O threads of Isthmus; its default if None
    load_threads: int | None = None  # threads of the load generators; one if None

    def scaled(self, number):
        """Less work with --quick."""
        return number // 10 if self.quick else number


@dataclasses.dataclass
class Measure:
    """A figure of a test. `wanted` bounds the ratio of the last side to the first (Isthmus/Redis): above it, or below it
    where less is better. `limit` bounds the last side's figure itself in the same way."""
    name: str
    unit: str
    more_is_better: bool
    wanted: float | None = None
    limit: float | None = None


@dataclasses.dataclass
class Test:
    """A test by its name `group.variant`. `run(settings, kind)` starts a server of that kind and measures it, for each of
    the `sides`; the last is compared with the first."""
    name: str
    about: str
    measures: list[Measure]
    run: Callable
    any_is_enough: bool = False  # one wanted ratio that is met is enough: the load generator may be the limit
    sides: tuple[str, ...] = ("redis", "isthmus")


def start(settings, kind, storage="memory"):
    """A server of `kind` that is not started yet."""
    binary = settings.redis_server if kind == "redis" else settings.isthmus
    # redis-server may stand in for Isthmus, to see what the harness itself makes of two equal servers.
    really = "redis" if binary.rpartition("/")[2] == "redis-server" else kind
    return Server(really, binary, storage, settings.threads)


# ---- commands, by redis-benchmark or by command_load ----

def benchmark(settings, server, requests, pipeline, words):
    """One run of redis-benchmark; throughput and latencies as it reports them."""
    line = [settings.redis_benchmark, "-p", str(server.port), "-c", str(CLIENTS), "-n", str(requests), "-P",
            str(pipeline), "-r", str(KEYS), "--csv", "--precision", "3"]
    if settings.load_threads:
        line += ["--threads", str(settings.load_threads)]
    done = subprocess.run(line + words, capture_output=True, text=True, timeout=600, check=False)
    rows = [row for row in csv.DictReader(done.stdout.splitlines()) if row.get("rps")]
    if done.returncode != 0 or len(rows) != 1:
        raise RuntimeError(f"redis-benchmark failed: {done.stdout} {done.stderr}")
    return {"throughput": float(rows[0]["rps"]), "p50": float(rows[0]["p50_latency_ms"]),
            "p99": float(rows[0]["p99_latency_ms"])}


def own_benchmark(settings, server, pipeline, words, seconds, **options):
    """One run of command_load, which measures the server's CPU time itself."""
    line = [settings.command_load, "--port", str(server.port), "--server-pid", str(server.process.pid), "--clients",
            str(CLIENTS), "--pipeline", str(pipeline), "--command", words[0].lower(), "--seconds", str(seconds),
            "--warm-up", str(seconds / 5)]
    for name, value in {"keys": KEYS, **options}.items():
        line += ["--" + name.replace("_", "-"), str(value)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"command_load failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def command_test(words, pipeline, storage, full_requests):
    """A test of one command: a tenth of the requests warms up, the rest is measured with the server's CPU time."""
    def run(settings, kind):
        requests = settings.scaled(full_requests)
        with start(settings, kind, storage) as server:
            if words[0] == "GET":
                with Client(server.port) as client:
                    client.load(KEYS, lambda i: encode("SET", b"key:%012d" % i, b"xxx"), b"+OK\r\n")
            if settings.command_load:
                return own_benchmark(settings, server, pipeline, words, 0.5 if settings.quick else 4)
            benchmark(settings, server, max(requests // 10, 1000), pipeline, words)
            before = server.cpu_seconds()
            result = benchmark(settings, server, requests, pipeline, words)
            result["cpu"] = (server.cpu_seconds() - before) * 1e6 / requests
            return result
    return run


def command_measures(throughput, cpu):
    """The figures of a command test and what the ratios should be."""
    return [Measure("throughput", "1/s", True, throughput), Measure("p50", "ms", False), Measure("p99", "ms", False),
            Measure("cpu", "µs/command", False, cpu)]


# ---- pub/sub, by pubsub_load ----

def load(settings, server, **options):
    """One run of pubsub_load, which fails if a message was lost, repeated or out of order."""
    if settings.load_threads:
        options.setdefault("threads", settings.load_threads)
    line = [settings.pubsub_load, "--port", str(server.port), "--server-pid", str(server.process.pid)]
    for name, value in options.items():
        line += ["--" + name.replace("_", "-"), str(value)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"pubsub_load failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def publish_test(subscribers, pipeline):
    """50 publishers as fast as they go, to one channel."""
    def run(settings, kind):
        with start(settings, kind) as server:
            got = load(settings, server, subscribers=subscribers, pipeline=pipeline, publishers=CLIENTS,
                       seconds=0.5 if settings.quick else 4, warm_up=0.2 if settings.quick else 1)
            return {"delivered": got["delivered_per_second"], "p50": got["p50_ms"], "p99": got["p99_ms"],
                    "cpu": got["cpu_us_per_delivery"], "cpu_publish": got["cpu_us_per_publish"]}
    return run


def latency_test(settings, kind):
    """One publisher, one subscriber, 1,000 messages a second."""
    with start(settings, kind) as server:
        got = load(settings, server, publishers=1, subscribers=1, rate=1000, seconds=1 if settings.quick else 5)
        return {"p50": got["p50_ms"], "p99": got["p99_ms"], "p999": got["p999_ms"], "cpu": got["cpu_us_per_publish"]}


def idle_test(settings, kind):
    """Publishers and ten subscribers at work beside ten thousand subscribers that never hear anything."""
    with start(settings, kind) as server:
        seconds = 1 if settings.quick else 5
        alone = load(settings, server, subscribers=10, publishers=10, seconds=seconds)
        beside = load(settings, server, subscribers=10, publishers=10, seconds=seconds, idle=10_000)
        return {"delivered": beside["delivered_per_second"],
                "kept": beside["delivered_per_second"] / alone["delivered_per_second"],
                "per_idle": (beside["resident_bytes_begin"] - beside["resident_bytes_before"]) / 10_000,
                "growth": max(beside["resident_bytes_end"] - beside["resident_bytes_begin"], 0) / 1024,
                "longest": beside["max_ms"]}


# ---- memory and start-up ----

def load_strings(client, count, value_bytes):
    """`count` strings under 16-byte keys."""
    value = b"v" * value_bytes
    form = b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%%012d\r\n$%d\r\n%s\r\n" % (len(value), value)
    client.load(count, lambda i: form % i, b"+OK\r\n")


def load_hashes(client, count):
    """`count` hashes of four fields under 16-byte keys."""
    fields = [b"name", b"alice", b"state", b"on", b"node", b"n1", b"seen", b"1700000000"]
    tail = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in fields)
    client.load(count, lambda i: b"*10\r\n$4\r\nHSET\r\n$16\r\nkey:%012d\r\n" % i + tail, b":4\r\n")


def memory_test(fill):
    """Resident memory per key, after a million keys (a tenth with --quick)."""
    def run(settings, kind):
        count = settings.scaled(MILLION)
        with start(settings, kind) as server, Client(server.port) as client:
            before = server.resident_bytes()
            fill(client, count)
            if client.call("DBSIZE") != count:
                raise RuntimeError("not all keys are there")
            return {"bytes": (server.resident_bytes() - before) / count}
    return run


def startup_test(redis_storage):
    """From the start of the process to the answer to a PING, with a million strings stored."""
    def run(settings, kind):
        count = settings.scaled(MILLION)
        server = start(settings, kind)
        server.storage = redis_storage if server.kind == "redis" else "durable"
        with server:
            with Client(server.port) as client:
                load_strings(client, count, 3)
                if server.storage == "rdb":
                    client.call("SAVE")
            server.stop()
            elapsed = server.start()
            with Client(server.port) as client:
                if client.call("DBSIZE") != count:
                    raise RuntimeError("not all keys came back")
            return {"ready": elapsed, "resident": server.resident_bytes() / 2**20}
    return run


def all_tests():
    """Every test in the order of the table."""
    tests = []
    commands = {"set": ["SET", "key:__rand_int__", "xxx"], "get": ["GET", "key:__rand_int__"],
                "hset": ["HSET", "hash:__rand_int__", "field", "xxx"]}
    for name, words in commands.items():
        for pipeline, requests, wanted in ((1, 300_000, 1.2), (16, 2_000_000, 1.5)):
            tests.append(Test(f"{name}.p{pipeline}", f"{words[0]} memory, {CLIENTS} clients, pipeline {pipeline}",
                              command_measures(wanted if name != "hset" else None, 0.8 if name != "hset" else None),
                              command_test(words, pipeline, "memory", requests)))
    for subscribers in (1, 100, 1000):
        for pipeline in (1, 16):
            aim = 1.2 if subscribers > 1 else None
            tests.append(Test(f"publish.s{subscribers}.p{pipeline}",
                              f"PUBLISH of 100 bytes to {subscribers} subscribers, {CLIENTS} publishers, "
                              f"pipeline {pipeline}",
                              [Measure("delivered", "1/s", True, aim), Measure("p50", "ms", False),
                               Measure("p99", "ms", False), Measure("cpu", "µs/delivery", False, 0.8 if aim else None),
                               Measure("cpu_publish", "µs/PUBLISH", False)],
                              publish_test(subscribers, pipeline), any_is_enough=True))
    tests.append(Test("latency.1000", "PUBLISH to subscriber at 1,000 messages/s",
                      [Measure("p50", "ms", False, 1.0), Measure("p99", "ms", False), Measure("p999", "ms", False),
                       Measure("cpu", "µs/PUBLISH", False)], latency_test))
    for pipeline, requests in ((1, 200_000), (16, 1_000_000)):
        tests.append(Test(f"durable.p{pipeline}",
                          f"SET sqlite: beside appendfsync always, {CLIENTS} clients, pipeline {pipeline}",
                          command_measures(1.0, None), command_test(commands["set"], pipeline, "durable", requests)))
    for name, about, fill in (("strings3", "strings of 3 bytes", lambda c, n: load_strings(c, n, 3)),
                              ("strings100", "strings of 100 bytes", lambda c, n: load_strings(c, n, 100)),
                              ("hashes", "hashes of 4 fields", load_hashes)):
        tests.append(Test(f"memory.{name}", f"resident memory of 1,000,000 {about}, 16-byte keys",
                          [Measure("bytes", "bytes/key", False, 1.0)], memory_test(fill)))
    for storage, about in (("durable", "AOF"), ("rdb", "RDB")):
        tests.append(Test(f"startup.{'aof' if storage == 'durable' else storage}",
                          f"start with 1,000,000 strings, sqlite: beside {about}",
                          [Measure("ready", "s", False), Measure("resident", "MiB", False)], startup_test(storage)))
    tests.append(Test("idle.10000", "10 publishers and 10 subscribers beside 10,000 idle subscribers",
                      [Measure("delivered", "1/s", True), Measure("kept", "of the rate alone", True),
                       Measure("per_idle", "bytes/subscriber", False), Measure("growth", "KiB in the run", False),
                       Measure("longest", "ms", False)], idle_test))
    return tests
