"""The clients: each is a loop on one connection, at one server, that reports to the history. Connections that break are made
again; what was under way then is of unknown outcome."""

import asyncio
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "compat"))

import resp  # noqa: E402  (the path is set above)
from history import Counter, Race, Register, Stream, Subscriber, check_halves  # noqa: E402

# No reply for so long is a fault of its own: a write answers after --commit-timeout (5 s) at the latest, plus what a stopped
# process was asleep.
REPLY_SECONDS = 25.0
COUNTERS = 6
WATCHED = 3
CHANNELS = 3
REGISTERS = 4            # of each client
EVENT_KEY_MS = 1500      # lifetime of the keys whose events are awaited
REFUSED_PAUSE = 0.05     # after CLUSTERDOWN or a refused connection


class Broken(Exception):
    """The connection broke before the reply came."""


class Unreachable(Exception):
    """The server takes no connections now."""


class Connection:
    """A connection to a server, made when it is first needed and after it broke."""

    def __init__(self, world, server):
        self.world, self.server = world, server
        self.reader = self.writer = None
        self.parser = resp.Reader()
        self.epoch = 0  # counts the connections made

    async def connect(self):
        if self.writer is not None:
            return
        try:
            self.reader, self.writer = await asyncio.wait_for(self.server.dial(), REPLY_SECONDS)
        except (OSError, asyncio.TimeoutError):
            raise Unreachable from None
        self.parser = resp.Reader()
        self.epoch += 1

    def close(self):
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def receive(self):
        """The next reply or message."""
        while True:
            try:
                return self.parser.next()
            except resp.Incomplete:
                pass
            try:
                data = await self.reader.read(1 << 16)
            except OSError:
                data = b""
            if not data:
                self.close()
                raise Broken
            self.parser.feed(data)

    async def pipeline(self, *commands):
        """Sends all and gives their replies. Raises Unreachable (nothing was sent) or Broken."""
        await self.connect()
        try:
            self.writer.write(b"".join(map(resp.encode, commands)))
            async with asyncio.timeout(REPLY_SECONDS):
                return [await self.receive() for _ in commands]
        except asyncio.TimeoutError:
            self.world.findings.add("replies", f"{self.server.name} did not answer {commands[0][0]} for {REPLY_SECONDS:.0f} s")
            self.close()
            raise Broken from None

    async def command(self, *words):
        return (await self.pipeline(words))[0]


class World:
    """What all clients share: servers, history, and the switch that ends them."""

    def __init__(self, servers, findings, doubts, seed):
        self.servers, self.findings, self.doubts, self.seed = servers, findings, doubts, seed
        self.running = True
        self.counters = [Counter(findings, f"counter:{i}") for i in range(COUNTERS)]
        self.watched = [Counter(findings, f"watched:{i}", "watch") for i in range(WATCHED)]
        self.registers, self.pairs, self.races = [], [], []
        self.streams, self.subscribers = [], []
        self.counts = {"acknowledged": 0, "unknown": 0, "refused": 0, "reads": 0}

    def random(self, name):
        return random.Random(f"{self.seed}/{name}")

    def reply_is_unknown(self, reply):
        """True for CLUSTERDOWN; any other error is a finding and unknown as well."""
        if not reply.is_error():
            return False
        if not reply.value.startswith(b"CLUSTERDOWN "):
            self.findings.add("replies", "an error: " + reply.text())
        return True


class Client:
    """A loop that does one step after the other until the world stops."""

    def __init__(self, world, server, name):
        self.world, self.server, self.name = world, server, f"{name}@{server.name}"
        self.random = world.random(self.name)
        self.connection = Connection(world, server)
        self.pause = 0.004  # seconds between two steps, on average

    async def run(self):
        while self.world.running:
            try:
                await self.step()
            except Unreachable:
                await asyncio.sleep(REFUSED_PAUSE)
            except Broken:
                pass
            await asyncio.sleep(self.random.uniform(0, 2 * self.pause))
        self.connection.close()

    async def write(self, commands, acknowledged, unknown, is_good):
        """One write, perhaps of several commands, of which the last reply counts. Calls one of the two; True if acknowledged.
        `is_good(reply)`: that reply, and no error, is expected."""
        try:
            reply = (await self.connection.pipeline(*commands))[-1]
        except Broken:
            self.world.counts["unknown"] += 1
            unknown()
            raise
        if reply.is_error() and reply.value.startswith(b"EXECABORT"):
            self.world.counts["refused"] += 1
            await asyncio.sleep(REFUSED_PAUSE)
            return False
        if self.world.reply_is_unknown(reply) or not is_good(reply):
            if not reply.is_error():
                self.world.findings.add("replies", f"{commands[-1][0]} was answered {reply.text()[:80]}")
            self.world.counts["unknown"] += 1
            unknown()
            await asyncio.sleep(REFUSED_PAUSE)
            return False
        self.world.counts["acknowledged"] += 1
        acknowledged(reply)
        return True

    async def read(self, *words):
        """The plain value of a reply, or raises Broken; an error is waited out and gives None."""
        reply = await self.connection.command(*words)
        self.world.counts["reads"] += 1
        if self.world.reply_is_unknown(reply):
            await asyncio.sleep(REFUSED_PAUSE)
            raise Broken
        return reply.plain()


def is_ok(reply):
    return reply.kind == "simple" and reply.value == b"OK"


def is_array(reply):
    return reply.kind == "array"


def number(value):
    return None if value is None else int(value)


class Incrementer(Client):
    """INCR on counters that all share."""

    async def step(self):
        counter = self.random.choice(self.world.counters)
        floor = counter.begin()
        await self.write([("INCR", counter.name)],
                         lambda reply: counter.acknowledged(floor, reply.value, self.name, time.monotonic()), counter.unknown,
                         lambda reply: reply.kind == "integer")


class Watcher(Client):
    """WATCH, GET, MULTI, SET, EXEC on keys that all share: an increment by hand."""

    async def step(self):
        counter = self.random.choice(self.world.watched)
        floor = counter.begin()
        await self.read("WATCH", counter.name)
        value = int(await self.read("GET", counter.name) or 0) + 1

        def acknowledged(reply):
            if reply.value is not None:
                counter.acknowledged(floor, value, self.name, time.monotonic())
        await self.write([("MULTI",), ("SET", counter.name, value), ("EXEC",)], acknowledged, counter.unknown,
                         lambda reply: reply.kind in ("array", "null_array"))


class Writer(Client):
    """SET and DEL of keys of its own, and GET of its own and others'."""

    def __init__(self, world, server, name):
        super().__init__(world, server, name)
        self.own = [Register(world.findings, f"register:{self.name}:{i}") for i in range(REGISTERS)]
        world.registers += self.own

    async def step(self):
        register = self.random.choice(self.own)
        dice = self.random.random()
        if dice < 0.2:
            register.read_by_owner(number(await self.read("GET", register.name)))
        elif dice < 0.4:
            other = self.random.choice(self.world.registers)
            other.read(number(await self.read("GET", other.name)), self.server.name, time.monotonic())
        else:
            delete = dice > 0.95
            n = register.begin(delete)
            await self.write([("DEL", register.name) if delete else ("SET", register.name, n)],
                             lambda _: register.acknowledged(n), lambda: register.unknown(n),
                             (lambda reply: reply.kind == "integer") if delete else is_ok)


class PairWriter(Client):
    """Two strings and two fields of a hash that change together in one EXEC."""

    def __init__(self, world, server, name):
        super().__init__(world, server, name)
        self.pair = Register(world.findings, f"pair:{self.name}")
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


class PairReader(Client):
    """Looks for halves of an EXEC, in one command and in one EXEC."""

    async def step(self):
        pair = self.random.choice(self.world.pairs)
        if self.random.random() < 0.5:
            values = await self.read("MGET", pair.name + ":a", pair.name + ":b")
        else:
            replies = await self.connection.pipeline(("MULTI",), ("GET", pair.name + ":b"), ("HGET", pair.name + ":h", "f"),
                                                     ("HGET", pair.name + ":h", "g"), ("GET", pair.name + ":a"), ("EXEC",))
            self.world.counts["reads"] += 1
            if self.world.reply_is_unknown(replies[-1]):
                return await asyncio.sleep(REFUSED_PAUSE)
            values = replies[-1].plain()
        values = [number(value) for value in values]
        check_halves(self.world.findings, pair.name, values, self.server.name)
        pair.read(values[0], self.server.name, time.monotonic())


class Publisher(Client):
    """Numbered messages. A new connection is a new publisher: order is promised for one connection."""

    def __init__(self, world, server, name):
        super().__init__(world, server, name)
        self.streams = {}

    async def step(self):
        await self.connection.connect()
        channel = self.random.randrange(CHANNELS)
        key = f"{self.name}/{self.connection.epoch}/{channel}"
        if key not in self.streams:
            self.streams[key] = Stream(key, self.server.name, "message")
            self.world.streams.append(self.streams[key])
        stream = self.streams[key]
        n = stream.begin(time.monotonic())
        await self.write([("PUBLISH", f"channel:{channel}", f"{key}#{n}")],
                         lambda _: stream.acknowledged(n, time.monotonic()), lambda: None,
                         lambda reply: reply.kind == "integer")


class EventMaker(Client):
    """SETs of keys that are never used again, whose events are awaited; they expire."""

    def __init__(self, world, server, name):
        super().__init__(world, server, name)
        self.stream = Stream(f"event/{self.name}", self.server.name, "event")
        world.streams.append(self.stream)

    async def step(self):
        n = self.stream.begin(time.monotonic())
        await self.write([("SET", f"{self.stream.name}#{n}", "x", "PX", EVENT_KEY_MS)],
                         lambda _: self.stream.acknowledged(n, time.monotonic()), lambda: None, is_ok)


class Listener(Client):
    """A subscriber of everything. Each connection is a subscriber of its own in the history."""

    async def step(self):
        connection = self.connection
        replies = await connection.pipeline(("PSUBSCRIBE", "channel:*", "__keyspace@0__:event/*"), ("PING", "there"))
        # Two acknowledgements, then what PING says; messages may stand between.
        subscriber = Subscriber(f"{self.name}/{connection.epoch}", self.server.name, float("inf"))
        self.world.subscribers.append(subscriber)
        try:
            acknowledged = 0
            for reply in replies:
                acknowledged += self.take(subscriber, reply)
            while True:
                if acknowledged == 3:
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
        what = words[3].decode()
        if words[1] != b"channel:*":
            if what != "set":
                return 0
            what = words[2].decode().partition(":")[2]
        name, _, n = what.rpartition("#")
        subscriber.got(name, int(n))
        return 0


async def races(world):
    """Rounds of SET NX, one contender at each server that can be reached."""
    connections = [Connection(world, server) for server in world.servers]
    dice = world.random("races")
    while world.running:
        race = Race(world.findings, f"lock:{len(world.races)}")
        world.races.append(race)
        await asyncio.gather(*(contend(world, race, connection) for connection in connections))
        await asyncio.sleep(dice.uniform(0, 0.06))
    for connection in connections:
        connection.close()


async def contend(world, race, connection):
    name = connection.server.name
    try:
        reply = await connection.command("SET", race.name, name, "NX")
    except Unreachable:
        return
    except Broken:
        race.unknowns.append(name)
        return
    if world.reply_is_unknown(reply):
        race.unknowns.append(name)
    elif is_ok(reply):
        race.won.append(name)
    else:
        race.lost.append(name)


def all_clients(world, crowd=1):
    """The clients of each server; `crowd` times as many as the least. What is not paced keeps its connection busy."""
    clients = []
    for server in world.servers:
        for i in range(crowd):
            kinds = [(Incrementer, "incr"), (Incrementer, "incr2"), (Watcher, "watch"), (Writer, "writer"), (Writer, "writer2"),
                     (PairWriter, "pair"), (PairReader, "reader"), (Publisher, "publisher"), (Publisher, "publisher2"),
                     (EventMaker, "events")]
            clients += [kind(world, server, f"{name}.{i}") for kind, name in kinds]
    return clients


def all_listeners(world):
    return [Listener(world, server, f"listener.{i}") for server in world.servers for i in range(2)]
