"""Runs with one story instead of faults at random (tests/chaos/run --scenario): clients as ever, and beside them a load of the
story's own whose figures are printed. What must hold is judged by the same rules.

most-lost   Five sites. Three are lost at once, then a fourth; the one that is left serves at full speed all the while. All come
            back, and are equal by themselves.
outage      Two sites are cut off from each other for --seconds while one publishes 5,000 messages a second, and the other a tenth
            of that. Nobody is handed a stale message or a repeated one when they meet again, and all state is there.
"""

import asyncio
import collections
import itertools
import statistics
import time

from clients import Broken, Connection, Unreachable
from workload import MAX_AGE_SECONDS, STALE_TOLERANCE

SITES = {"most-lost": 5, "outage": 2}
# What PostgreSQL gets beside the settings of every run.
SETTINGS = {"most-lost": {}, "outage": {"max_slot_wal_keep_size": "16GB"}}
SECONDS = {"most-lost": 60.0, "outage": 600.0}

STEADY_SECONDS = 8.0       # before, to have something to compare with
FULL_SPEED_PIPELINE = 20   # requests under way on each connection
FULL_SPEED_KEYS = 1000
# A site that is left alone must not be slower than so much of what it was, nor stand still for so long.
FULL_SPEED_SHARE = 0.8
LONGEST_PAUSE_SECONDS = 1.5
MESSAGES_A_SECOND = (5000, 500)
TICK_SECONDS = 0.01


class FullSpeed:
    """SET and PUBLISH at one server as fast as it takes them, and a subscriber of those messages."""

    def __init__(self, world, server):
        self.world, self.server, self.running = world, server, True
        self.done = []       # (when, how many) writes and messages were acknowledged together
        self.last = {}       # key: the value acknowledged last
        self.published = self.heard = 0

    async def write(self):
        connection, count = Connection(self.world, self.server), 0
        while self.running:
            batch = [("SET", f"~speed:{(count + i) % FULL_SPEED_KEYS}", count + i) for i in range(FULL_SPEED_PIPELINE)]
            batch += [("PUBLISH", "speed", count + i) for i in range(FULL_SPEED_PIPELINE)]
            for words, reply in zip(batch, await connection.pipeline(*batch)):
                if reply.is_error():
                    self.world.findings.add("service", f"{self.server.name}, the one that is left: {reply.text()}")
                elif words[0] == "SET":
                    self.last[words[1]] = str(words[2])
            count += FULL_SPEED_PIPELINE
            self.published = count
            self.done.append((time.monotonic(), len(batch)))
        connection.close()

    async def listen(self):
        connection = Connection(self.world, self.server)
        await connection.command("SUBSCRIBE", "speed")
        while True:
            reply = (await connection.receive()).plain()
            if reply[0] != b"message":
                continue
            if int(reply[2]) != self.heard:
                self.world.findings.add("message-all", f"{self.server.name}: message {reply[2].decode()} came after {self.heard - 1}")
            self.heard = int(reply[2]) + 1

    def rate(self, begin, end):
        return sum(n for when, n in self.done if begin <= when < end) / (end - begin)

    def pause(self, begin, end):
        """The longest time without an acknowledgement, without what the machine itself stood still of it."""
        times = [begin] + [when for when, _ in self.done if begin <= when < end] + [end]
        return max(b - a - self.world.lag.stalled(a, b) for a, b in itertools.pairwise(times))


async def most_lost(run, breakage, seconds):
    """A third of the time with three sites lost, a third with four; the rest before and after."""
    world, findings = run.world, run.findings
    left, *others = breakage.sites
    load = FullSpeed(world, left.servers[0])
    listener = asyncio.create_task(load.listen())
    writer = asyncio.create_task(load.write())
    phases = []

    async def phase(name, duration):
        begin = time.monotonic()
        await asyncio.sleep(duration)
        phases.append((name, begin, time.monotonic()))

    async def lose(sites):
        for site in sites:
            breakage.excuses.lossy(site.name, None, *breakage.away(site))
        await asyncio.gather(*(site.kill_servers() for site in sites))
        await asyncio.gather(*(site.stop_database("immediate") for site in sites))

    await phase("all five", STEADY_SECONDS)
    async with breakage.trouble(*others):
        begin = time.monotonic()
        await lose(others[:3])
        phases.append(("losing three", begin, time.monotonic()))
        await phase("two left", seconds / 3)
        begin = time.monotonic()
        await lose(others[3:])
        phases.append(("losing a fourth", begin, time.monotonic()))
        await phase("one left", seconds / 3)
        begin = time.monotonic()
        for site in others:
            await site.start_database()
            site.launch_servers()
    breakage.counts["site lost"] = len(others)
    await breakage.settle("after four sites came back")
    run.say(f"All sites have everything of each other {time.monotonic() - begin:.1f} s after the first of four began to start")
    phases.append(("coming back", begin, time.monotonic()))
    for site in others:
        breakage.excuses.returned(site.name, *phases[-1][1:])
    load.running = False
    await writer
    await asyncio.sleep(1.0)
    listener.cancel()
    if load.heard != load.published:
        findings.add("message-all", f"{load.server.name} published {load.published} messages and delivered {load.heard}")
    before = load.rate(*phases[0][1:])
    for name, begin, end in phases:
        rate, pause = load.rate(begin, end), load.pause(begin, end)
        run.say(f"{left.name}, {name}: {rate:.0f} writes and messages/s acknowledged in {end - begin:.1f} s, longest pause {pause:.2f} s")
        if name in ("two left", "one left") and rate < FULL_SPEED_SHARE * before:
            findings.add("service", f"{left.name}, {name}: {rate:.0f}/s, and {before:.0f}/s before")
        if pause > LONGEST_PAUSE_SECONDS:
            findings.add("service", f"{left.name}, {name}: nothing was acknowledged for {pause:.1f} s")
    run.expect.update(load.last)


class Sender:
    """Numbered messages at a steady rate at one site, and a subscriber of them at another one that knows when each was sent."""

    def __init__(self, world, source, target, rate):
        self.world, self.source, self.target, self.rate = world, source, target, rate
        self.channel = f"rate:{source.name}"
        self.sent, self.acked = [], 0   # when each was sent
        self.received, self.ages, self.lost, self.running = 0, collections.deque(maxlen=100_000), [], True
        self.oldest = 0.0

    async def send(self):
        connection, begin = Connection(self.world, self.source.servers[0]), time.monotonic()
        text = "x" * 80
        while self.running:
            due = int((time.monotonic() - begin) * self.rate) - len(self.sent)
            if due <= 0:
                await asyncio.sleep(TICK_SECONDS)
                continue
            first, now = len(self.sent), time.monotonic()
            due = min(due, 500)
            self.sent.extend([now] * due)
            for reply in await connection.pipeline(*(("PUBLISH", self.channel, f"{first + i} {text}") for i in range(due))):
                if reply.is_error():
                    self.world.findings.add("replies", f"{self.source.name} answered PUBLISH with {reply.text()}")
                else:
                    self.acked += 1
        connection.close()

    async def receive(self):
        connection, last = Connection(self.world, self.target.servers[0]), -1
        await connection.command("SUBSCRIBE", self.channel)
        while True:
            words = (await connection.receive()).plain()
            if words[0] != b"message":
                continue
            now, number = time.monotonic(), int(words[2].split(b" ")[0])
            age = now - self.sent[number]
            self.received += 1
            self.ages.append(age)
            self.oldest = max(self.oldest, age)
            if number <= last:
                self.world.findings.add("message-once" if number == last else "message-order",
                                        f"{self.target.name}: {self.channel} {number} came after {last}")
            elif number > last + 1:
                self.lost.append((last + 1, number - 1))
            last = number
            if age > MAX_AGE_SECONDS + STALE_TOLERANCE + self.world.lag.lately(now):
                self.world.findings.add("message-stale", f"{self.target.name}: {self.channel} {number} came {age:.1f} s after it was sent")

    def judge(self, cut, back):
        """Messages may be missing that were sent in the outage, or while the link caught up with it."""
        for first, last in self.lost:
            if self.sent[first] < cut - 1.0 or self.sent[last] > back:
                self.world.findings.add("message-all", f"{self.target.name} lacks {self.channel} {first} to {last}, sent from "
                                                       f"{self.sent[first] - cut:.1f} s after the cut to {self.sent[last] - back:.1f} s "
                                                       "after the link had caught up")


async def outage(run, breakage, seconds):
    """Both directions carry messages; the clients of every run write meanwhile."""
    world = run.world
    a, b = breakage.sites
    senders = [Sender(world, source, target, rate) for (source, target), rate in zip(((a, b), (b, a)), MESSAGES_A_SECOND)]
    receivers = [asyncio.create_task(sender.receive()) for sender in senders]
    await asyncio.sleep(1.0)
    tasks = [asyncio.create_task(sender.send()) for sender in senders]
    await asyncio.sleep(STEADY_SECONDS)
    cut = time.monotonic()
    with breakage.network.cut(breakage.network.pairs()):
        await asyncio.sleep(seconds)
    healed = time.monotonic()
    breakage.counts["outage"] = 1
    before = [sender.received for sender in senders]
    await breakage.settle("after the outage", patience=max(60.0, seconds))
    back = time.monotonic()
    run.say(f"Each site has everything of the other {back - healed:.1f} s after an outage of {healed - cut:.0f} s")
    await asyncio.sleep(STEADY_SECONDS)
    for sender in senders:
        sender.running = False
    await asyncio.gather(*tasks)
    ended = time.monotonic()
    await asyncio.sleep(2.0)
    for task in receivers:
        task.cancel()
    for sender, first in zip(senders, before):
        sender.judge(cut, back)
        missing = sum(last - first + 1 for first, last in sender.lost)
        run.say(f"{sender.source.name} to {sender.target.name}: {len(sender.sent)} messages sent at "
                f"{len(sender.sent) / (ended - sender.sent[0]):.0f}/s, {sender.acked} acknowledged, {sender.received} delivered, "
                f"{missing} too old when they could come, {sender.received - first} delivered since; oldest when it came "
                f"{sender.oldest:.2f} s, median {statistics.median(sender.ages) * 1000:.1f} ms")


STORIES = {"most-lost": most_lost, "outage": outage}


async def play(name, run, breakage, seconds):
    try:
        await STORIES[name](run, breakage, seconds)
    except (Broken, Unreachable) as error:
        run.findings.add("service", f"the load of {name} broke off: {type(error).__name__}")
