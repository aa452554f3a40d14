"""What clients do at every site of a chaos run: each is a loop on one connection, at one server, that reports to the records."""

import asyncio
import collections
import os
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faults"))

from clients import (REFUSED_PAUSE, Broken, Client, Connection, Publisher, Unreachable, is_array, is_ok,  # noqa: E402
                     number)
from history import check_halves  # noqa: E402  (the path is set above)
from records import Grave, Listening, SharedKey, Tally, TimedRegister, judge_stale  # noqa: E402

MAX_AGE_SECONDS = 10.0       # --message-max-age
STALE_TOLERANCE = 1.3        # "within a second", and what a busy machine may take to hand a message to its client
# Longer than this without its own trouble is no full service: a commit takes milliseconds, on a machine that is busy tenths.
SLOW_SECONDS = 4.0
SHARED = 4                   # keys, and as many fields, that all sites write
TALLIES = 3                  # counters that are strings, and as many that are fields
MIXED = 4                    # keys that are strings, hashes and sets in turn
OPEN_GRAVES = 2000
DAY_SECONDS = 86400
WATCH_PAUSE = 0.1
PROBE = "~probe:"            # before a site's name; no listener asks for its events


class Trouble:
    """Times at which a site's own servers or database fail, until a write that was sent afterwards has been acknowledged."""

    def __init__(self):
        self.spans = []    # [begin, end or None]
        self.active = 0
        self.over = None   # when the last fault ended, while nothing has been acknowledged since
        self.waiting = []

    def begin(self, now):
        self.active += 1
        self.over = None
        if not self.spans or self.spans[-1][1] is not None:
            self.spans.append([now, None])

    def end(self, now):
        self.active -= 1
        if not self.active:
            self.over = now

    def good(self, began, now):
        """A write has succeeded."""
        if self.over is not None and began >= self.over:
            self.spans[-1][1], self.over = now, None
            for future in self.waiting:
                if not future.done():
                    future.set_result(now)
            self.waiting.clear()

    async def passed(self):
        """Waits until it is over."""
        if self.spans and self.spans[-1][1] is None:
            self.waiting.append(asyncio.get_running_loop().create_future())
            await self.waiting[-1]

    def touches(self, begin, end):
        return any(a <= end and (b is None or begin <= b) for a, b in self.spans)


class Lag:
    """By how much this process, and so perhaps everybody on the machine, is late just now; and its disk."""

    TICK, REMEMBERED = 0.05, 15.0
    STALL = 0.5  # seconds from which on a flush of a few bytes is one
    REFUSED_SECONDS = 10.0  # how long after a stall writes may be refused

    def __init__(self):
        self.late = collections.deque()  # (when, seconds), of the last while, without those that a later and greater one outdoes
        self.worst = self.worst_flush = 0.0
        self.stalls = []  # of the machine: (from, until)
        # What is late just now: since when the process and a flush have been expected to go on. Others may run before those who
        # watch, and judge.
        self.ticked = self.flushing = None

    async def watch(self):
        while True:
            began = self.ticked = time.monotonic()
            await asyncio.sleep(self.TICK)
            now = time.monotonic()
            late = now - began - self.TICK
            self.worst = max(self.worst, late)
            while self.late and self.late[-1][1] <= late:
                self.late.pop()
            self.late.append((now, late))
            if now - began > self.STALL:
                self.stalls.append((began, now))
            while self.late[0][0] < now - self.REMEMBERED:
                self.late.popleft()

    async def watch_disk(self, folder):
        """Flushes a few bytes again and again, as every commit does. `folder` is on the disk of the databases."""
        path = folder / "flushed"
        with open(path, "wb", buffering=0) as file:
            try:
                while True:
                    await asyncio.sleep(self.TICK)
                    file.write(b"x")
                    began = self.flushing = time.monotonic()
                    await asyncio.to_thread(os.fdatasync, file.fileno())
                    now, self.flushing = time.monotonic(), None
                    self.worst_flush = max(self.worst_flush, now - began)
                    if now - began > self.STALL:
                        self.stalls.append((began, now))
            finally:
                path.unlink()

    def stalled(self, begin, end):
        """For how many seconds of that time the machine did nothing for anybody, at least."""
        going_on = [(since, end) for since in (self.ticked, self.flushing) if since is not None and end - since > self.STALL]
        return max([0.0] + [min(until, end) - max(since, begin) for since, until in self.stalls + going_on])

    def explains_refusal(self, began, ended):
        """Whether the machine stood still so long, shortly before or while a write was refused, that a commit can have missed its
        deadline (--commit-timeout), after which a server refuses writes until it knows what became of it."""
        return self.stalled(began - self.REFUSED_SECONDS, ended) >= SLOW_SECONDS

    def lately(self, now):
        """The greatest lateness in the time that a message may be under way."""
        just_now = 0.0 if self.ticked is None else max(0.0, now - self.ticked - self.TICK)
        # The first that is young enough is the greatest.
        return max(just_now, next((seconds for when, seconds in self.late if when > now - self.REMEMBERED), 0.0))


class Streams(list):
    """All that was published, also by name."""

    def __init__(self):
        super().__init__()
        self.by_name = {}

    def append(self, stream):
        super().append(stream)
        self.by_name[stream.name] = stream


class World:
    """What all clients share."""

    def __init__(self, sites, findings, reach, seed, pace):
        self.sites, self.findings, self.reach, self.seed, self.pace = sites, findings, reach, seed, pace
        self.names = [site.name for site in sites]
        self.running = True
        clock = time.monotonic
        self.registers, self.fields, self.pairs = [], [], []
        self.shared = [SharedKey(findings, f"shared:{i}", self.names, clock) for i in range(SHARED)]
        self.shared_fields = [SharedKey(findings, f"shared:hash f{i}", self.names, clock) for i in range(SHARED)]
        self.tallies = [Tally(findings, f"counter:{i}") for i in range(TALLIES)]
        self.field_tallies = [Tally(findings, f"counter:hash f{i}") for i in range(TALLIES)]
        self.graves, self.open_graves = [], collections.deque(maxlen=OPEN_GRAVES)
        self.streams, self.subscribers = Streams(), []
        self.counts = collections.Counter()
        self.trouble = {name: Trouble() for name in self.names}
        self.whole = set()   # sites that have had everything of all others once
        self.restored = {}   # site: until when its own clients may read older values
        self.slowest = {name: 0.0 for name in self.names}
        self.lag = Lag()

    def random(self, name):
        return random.Random(f"{self.seed}/{name}")

    def reply_is_unknown(self, reply):
        """True for CLUSTERDOWN; any other error is a finding and unknown as well."""
        if not reply.is_error():
            return False
        if not reply.value.startswith((b"CLUSTERDOWN ", b"LOADING ")):
            self.findings.add("replies", "an error: " + reply.text())
        return True

    def subscribers_of(self, kind):
        """"messages" or "events"."""
        return [subscriber for subscriber in self.subscribers if subscriber.name.startswith(kind)]

    def roll_back(self, site, bound):
        """The site's database has lost what was acknowledged after that time and had reached nobody else."""
        for register in self.registers + self.fields + self.pairs:
            if register.site == site:
                register.roll_back(bound)
        for key in self.shared + self.shared_fields:
            key.registers[site].roll_back(bound)
        for tally in self.tallies + self.field_tallies:
            tally.roll_back(site, bound)
        for grave in self.graves:
            grave.roll_back(site, bound)


class SiteClient(Client):
    """A client that expects full service while its own site is well."""

    def __init__(self, world, server, name):
        super().__init__(world, server, name)
        self.site = server.site.name
        self.pause = world.pace

    def register(self, name):
        register = TimedRegister(self.world.findings, name, time.monotonic)
        register.site = self.site
        return register

    async def run(self):
        while self.world.running:
            began = time.monotonic()
            try:
                await self.step()
            except Unreachable:
                self.judge_service(began, "was not reachable")
                await asyncio.sleep(REFUSED_PAUSE)
            except Broken:
                self.judge_service(began, "broke the connection")
            await asyncio.sleep(self.random.uniform(0, 2 * self.pause))
        self.connection.close()

    def judge_service(self, began, what):
        now = time.monotonic()
        if not self.world.trouble[self.site].touches(began - 0.5, now):
            self.world.findings.add("service", f"{self.server.name} {what} for {self.name} at "
                                               f"{self.world.findings.time_text(now)} and had no trouble of its own")

    async def write(self, commands, acknowledged, unknown, is_good):
        began = time.monotonic()
        good = await super().write(commands, acknowledged, unknown, is_good)
        seconds = time.monotonic() - began
        if not good:
            if not self.world.lag.explains_refusal(began, began + seconds):
                self.judge_service(began, f"did not take {commands[-1][0]}")
        elif not self.world.trouble[self.site].touches(began, began + seconds):
            self.world.slowest[self.site] = max(self.world.slowest[self.site], seconds)
            if seconds - self.world.lag.stalled(began, began + seconds) > SLOW_SECONDS:
                self.judge_service(began, f"took {seconds:.1f} s over {commands[-1][0]}")
        return good

    def may_read_old(self):
        """Whether the database was put back, and lacks for the moment what others still have."""
        return time.monotonic() < self.world.restored.get(self.site, 0.0)


class Writer(SiteClient):
    """SET and DEL of keys of its own, and GET of them."""

    def __init__(self, world, server, name):
        super().__init__(world, server, name)
        self.own = [self.register(f"register:{self.name}:{i}") for i in range(4)]
        world.registers += self.own

    async def step(self):
        register, dice = self.random.choice(self.own), self.random.random()
        if dice < 0.2:
            value = number(await self.read("GET", register.name))
            if not self.may_read_old():
                register.read_by_owner(value)
            return
        delete = dice > 0.9
        n = register.begin(delete)
        await self.write([("DEL", register.name) if delete else ("SET", register.name, n)], lambda _: register.acknowledged(n),
                         lambda: register.unknown(n), (lambda reply: reply.kind == "integer") if delete else is_ok)


class FieldWriter(SiteClient):
    """HSET and HDEL of fields of a hash of its own, which sometimes gets a deadline far away."""

    def __init__(self, world, server, name):
        super().__init__(world, server, name)
        self.key = f"hash:{self.name}"
        self.own = [self.register(f"{self.key} f{i}") for i in range(4)]
        world.fields += self.own

    async def step(self):
        place, dice = self.random.randrange(len(self.own)), self.random.random()
        register, field = self.own[place], f"f{place}"
        if dice < 0.1:
            words = ("EXPIRE", self.key, DAY_SECONDS) if dice < 0.07 else ("PERSIST", self.key)
            await self.write([words], lambda _: None, lambda: None, lambda reply: reply.kind == "integer")
            return
        delete = dice > 0.85
        n = register.begin(delete)
        await self.write([("HDEL", self.key, field) if delete else ("HSET", self.key, field, n)],
                         lambda _: register.acknowledged(n), lambda: register.unknown(n), lambda reply: reply.kind == "integer")


class PairWriter(SiteClient):
    """Two strings and two fields of a hash that change together in one EXEC."""

    def __init__(self, world, server, name):
        super().__init__(world, server, name)
        self.pair = self.register(f"pair:{self.name}")
        world.pairs.append(self.pair)

    async def step(self):
        delete = self.random.random() < 0.1
        n, name = self.pair.begin(delete), self.pair.name
        if delete:
            changes = [("DEL", name + ":a"), ("DEL", name + ":h"), ("DEL", name + ":b")]
        else:
            changes = [("SET", name + ":a", n), ("HSET", name + ":h", "f", n, "g", n), ("SET", name + ":b", n)]
        await self.write([("MULTI",), *changes, ("EXEC",)], lambda _: self.pair.acknowledged(n),
                         lambda: self.pair.unknown(n), is_array)


class PairReader(SiteClient):
    """Looks for halves of an EXEC of its own site."""

    async def step(self):
        pairs = [pair for pair in self.world.pairs if pair.site == self.site]
        if not pairs:
            return
        pair = self.random.choice(pairs)
        values = await self.read("MGET", pair.name + ":a", pair.name + ":b")
        if not self.may_read_old():
            check_halves(self.world.findings, pair.name, [number(value) for value in values], self.server.name)


class SharedWriter(SiteClient):
    """Writes what clients at all other sites write too."""

    async def step(self):
        place, of_hash, delete = self.random.randrange(SHARED), self.random.random() < 0.5, self.random.random() < 0.1
        key = (self.world.shared_fields if of_hash else self.world.shared)[place]
        register = key.registers[self.site]
        n = register.begin(delete)
        value = f"{self.site}/{n}"
        if of_hash:
            words = ("HDEL", "shared:hash", f"f{place}") if delete else ("HSET", "shared:hash", f"f{place}", value)
        else:
            words = ("DEL", key.name) if delete else ("SET", key.name, value)
        await self.write([words], lambda _: register.acknowledged(n), lambda: register.unknown(n),
                         lambda reply: reply.kind == "integer" or is_ok(reply))


class Counting(SiteClient):
    """INCR and HINCRBY of counters that all sites share. A new site begins when it has seen them: what it counts before that is
    replaced by what it has not seen, as any write is by one that it is concurrent with."""

    async def step(self):
        if self.site not in self.world.whole:
            return
        place, of_hash = self.random.randrange(TALLIES), self.random.random() < 0.5
        tally = (self.world.field_tallies if of_hash else self.world.tallies)[place]
        words = ("HINCRBY", "counter:hash", f"f{place}", 1) if of_hash else ("INCR", tally.name)
        await self.write([words], lambda _: tally.acknowledged(self.site, time.monotonic()), tally.unknown,
                         lambda reply: reply.kind == "integer")


class Digger(SiteClient):
    """Makes keys that somebody, perhaps at another site, deletes once and for all."""

    def __init__(self, world, server, name):
        super().__init__(world, server, name)
        self.made = 0

    async def step(self):
        if self.random.random() < 0.5 or not self.world.open_graves:
            self.made += 1
            grave = Grave(f"grave:{self.name}:{self.made}", self.site)
            await self.write([("SET", grave.key, "x")], lambda _: self.world.open_graves.append(grave), lambda: None, is_ok)
            return
        place = self.random.randrange(len(self.world.open_graves))
        grave = self.world.open_graves[place]
        del self.world.open_graves[place]
        if await self.read("GET", grave.key) is None:
            # It has not come here yet. Later, then.
            self.world.open_graves.append(grave)
            return

        def gone(reply):
            if reply.value == 1:
                grave.deleted(self.site, time.monotonic())
        self.world.graves.append(grave)
        await self.write([("DEL", grave.key)], gone, lambda: None, lambda reply: reply.kind == "integer")


class Expiring(SiteClient):
    """Keys that live some seconds."""

    def __init__(self, world, server, name):
        super().__init__(world, server, name)
        self.made = 0

    async def step(self):
        self.made += 1
        await self.write([("SET", f"ttl:{self.name}:{self.made}", "x", "PX", self.random.randrange(300, 4000))], lambda _: None,
                         lambda: None, is_ok)


class Mixing(SiteClient):
    """Whatever goes, on a few keys of all sites: only that all agree in the end is judged."""

    async def step(self):
        one, other = (f"mixed:{self.random.randrange(MIXED)}" for _ in range(2))
        words = self.random.choice([
            ("SET", one, self.random.random()), ("HSET", one, "f", self.random.random(), "g", 1), ("HDEL", one, "f"),
            ("DEL", one), ("PEXPIRE", one, self.random.randrange(200, 3000)), ("PERSIST", one), ("RENAME", one, other),
            ("INCR", one), ("HINCRBY", one, "g", 2), ("APPEND", one, "x"), ("SET", one, 5, "PX", 800), ("COPY", one, other),
            ("SADD", one, "f", self.random.randrange(5)), ("SADD", one, "f"), ("SREM", one, "f"), ("SPOP", one), ("SMOVE", one, other, "f"),
            ("SUNIONSTORE", one, one, other)])
        await self.connection.command(*words)


class SitePublisher(SiteClient, Publisher):
    """Numbered messages; see Publisher."""


class Listener(SiteClient):
    """A subscriber of all that matches a pattern. Each connection is a subscriber of its own in the records."""

    pattern = ""

    async def step(self):
        connection = self.connection
        replies = await connection.pipeline(("PSUBSCRIBE", self.pattern), ("PING", "there"))
        # The acknowledgement, then what PING says; messages may stand between.
        subscriber = Listening(f"{self.name}/{connection.epoch}", self.server.name, float("inf"))
        self.world.subscribers.append(subscriber)
        try:
            acknowledged = sum(self.take(subscriber, reply) for reply in replies)
            while True:
                if acknowledged == 2:
                    subscriber.began = time.monotonic()
                    acknowledged += 1
                acknowledged += self.take(subscriber, await connection.receive())
        finally:
            subscriber.ended = time.monotonic()
            # The driver cancels it in the end, when nothing more can come.
            if not self.world.running:
                subscriber.ended = None

    def take(self, subscriber, reply):
        """1 for an acknowledgement, 0 for a message."""
        words = reply.plain()
        if reply.kind != "array" or words[0] != b"pmessage":
            return 1
        self.world.counts["delivered"] += 1
        self.heard(subscriber, words[2].decode(), words[3].decode())
        return 0


class MessageListener(Listener):
    """Of all messages."""

    pattern = "channel:*"

    def heard(self, subscriber, channel, text):
        del channel
        name, _, n = text.rpartition("#")
        subscriber.got(name, int(n))
        stream, now = self.world.streams.by_name.get(name), time.monotonic()
        if stream is not None:
            source = next(site for site in self.world.sites if site.name == stream.server.partition("/")[0])
            # A clock that was just set is known to the other site a few seconds later.
            clocks = max((site.swing(now) for site in (source, self.server.site)), default=0.0)
            judge_stale(self.world.findings, stream, int(n), subscriber, now, MAX_AGE_SECONDS,
                        STALE_TOLERANCE + clocks + self.world.lag.lately(now))


class EventListener(Listener):
    """Of all keyspace events but those of the probes."""

    pattern = "__keyspace@0__:[^~]*"

    def heard(self, subscriber, channel, text):
        key = channel.partition(":")[2]
        subscriber.told(key, text, key.startswith(("grave:", "ttl:")))


async def probe(world, site):
    """Writes rising numbers all the time, at whichever server takes them."""
    connections, turn = [Connection(world, server) for server in site.servers], 0
    trouble = world.trouble[site.name]
    while True:
        began = time.monotonic()
        n = world.reach.begin(site.name, began)
        try:
            if is_ok(await connections[turn].command("SET", PROBE + site.name, n)):
                trouble.good(began, time.monotonic())
        except (Broken, Unreachable):
            turn = (turn + 1) % len(connections)
        await asyncio.sleep(world.pace / 2)


async def watch_reach(world, server):
    """Asks a server all the time how far it has the others."""
    connection = Connection(world, server)
    while True:
        try:
            await read_reach(world, server, connection)
        except (Broken, Unreachable):
            pass
        await asyncio.sleep(WATCH_PAUSE)


async def read_reach(world, server, connection):
    """{site: number} as the server has them now. Raises Broken or Unreachable."""
    asked = time.monotonic()
    reply = await connection.command("MGET", *(PROBE + name for name in world.names))
    if reply.is_error():
        raise Broken
    numbers = {name: number(value) or 0 for name, value in zip(world.names, reply.plain())}
    for name, n in numbers.items():
        world.reach.shown(name, server.name, n, time.monotonic() if n else asked)
    return numbers


def clients_of(world, site):
    """All clients of a site but its listeners."""
    clients = []
    for place, server in enumerate(site.servers):
        kinds = [(Writer, "writer"), (Writer, "writer2"), (FieldWriter, "fields"), (PairWriter, "pair"), (PairReader, "reader"),
                 (Counting, "counting"), (Digger, "digger"), (Expiring, "expiring"), (Mixing, "mixing"),
                 (SitePublisher, "publisher"), (SitePublisher, "publisher2")]
        if place == 0:
            kinds.append((SharedWriter, "shared"))
        clients += [kind(world, server, name) for kind, name in kinds]
    return clients


def listeners_of(world, site):
    return [kind(world, server, name) for server in site.servers
            for kind, name in ((MessageListener, "messages"), (EventListener, "events"))]
