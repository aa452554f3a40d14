"""What the clients of several sites saw, and whether sites that keep their promises can have shown it. No I/O and no clock: whoever
drives the clients reports what happened and when (seconds of one monotonic clock). An operation is acknowledged or of unknown
outcome: it may have happened, or happen yet.

A site whose database was put back to an older copy loses what no other site had seen; what may be lost then becomes unknown
(`roll_back`).
"""

import bisect
import collections
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faults"))

from history import Register, Subscriber  # noqa: E402  (the path is set above)

# What is judged, in the order of the report: each rule passes or fails as a whole.
RULES = {
    "writes": "the last acknowledged write of a key or field with one writer is in force, or a later one of unknown outcome",
    "shared": "what several sites write holds the last write of one of them, and of none that wrote long before another",
    "counters": "INCR and HINCRBY of all sites add up: every acknowledged one, and none twice",
    "deleted": "what was deleted stays deleted",
    "expiry": "expired keys are gone everywhere",
    "halves": "EXEC is never seen in halves",
    "same": "all servers of all sites hold the same state (DEBUG DIGEST)",
    "sql": "isthmus.current of every site shows that state",
    "time": "they are equal in time once links are whole and writes have stopped",
    "message-once": "no subscriber's connection receives a message twice",
    "message-order": "messages of one publishing connection to one channel arrive in order",
    "message-all": "acknowledged messages reach every subscriber at every site that is not too late for them",
    "message-stale": "no message arrives later than --message-max-age after it was sent",
    "event-once": "a key that is made once is told to be made, deleted or expired at most once",
    "view": "the last keyspace event of each key that a subscriber was told fits the final state",
    "service": "a site is served while only others or the network fail, and soon after its own faults",
    "replies": "no reply but what is promised, and none missing",
    "processes": "no server ends, complains or hangs by itself",
    "secrets": "the passwords of the databases stand in no log and not in INFO",
}

# Clocks differ by at most 4 s either way, and so do versions; who wrote so long after another wins.
CLEARLY_LATER_SECONDS = 10.0
GONE_EVENTS = {"del", "expired", "rename_from"}
# Said of a key that goes, before the word that says so.
MAYBE_GONE_EVENTS = {"hdel", "srem", "spop"}


class TimedRegister(Register):
    """A Register that knows when its writes were begun and acknowledged, by the clock that it is given."""

    def __init__(self, findings, name, clock):
        super().__init__(findings, name)
        self.clock = clock
        self.begun_at, self.acked_at = {}, {}

    def begin(self, delete=False):
        number = super().begin(delete)
        self.begun_at[number] = self.clock()
        return number

    def acknowledged(self, number):
        self.acked_at.setdefault(number, self.clock())
        super().acknowledged(number)

    def roll_back(self, bound):
        """Only what was acknowledged before that time is certain."""
        certain = max((n for n, when in self.acked_at.items() if when < bound), default=0)
        if certain < self.last:
            self.last = certain
            self.unknowns = set(range(certain + 1, self.number + 1))
            self.acked_at = {n: when for n, when in self.acked_at.items() if n <= certain}


class SharedKey:
    """A key or field that one client at each site writes. Values are "SITE/NUMBER"."""

    def __init__(self, findings, name, sites, clock):
        self.findings, self.name = findings, name
        self.registers = {site: TimedRegister(findings, f"{name} of {site}", clock) for site in sites}

    def final(self, value):
        if value is None:
            deleted = any(register.allowed() & (register.deletes - {0}) for register in self.registers.values())
            if not deleted and not all(0 in register.allowed() for register in self.registers.values()):
                self.findings.add("shared", f"{self.name} is absent, and nobody deleted it last")
            return
        site, _, number = value.partition("/")
        register = self.registers.get(site)
        if register is None or int(number) not in register.allowed() - register.deletes:
            self.findings.add("shared", f"{self.name} is {value}: " + "; ".join(
                f"{name} has {r.last}{' (a delete)' if r.last in r.deletes else ''} acknowledged last, unknown since: "
                f"{sorted(r.unknowns)[:5] or 'none'}" for name, r in self.registers.items()))
            return
        self.check_age(site, int(number))

    def check_age(self, site, number):
        acked = self.registers[site].acked_at.get(number)
        for other, register in self.registers.items():
            begun = register.begun_at.get(register.last)
            if acked is not None and begun is not None and begun > acked + CLEARLY_LATER_SECONDS:
                self.findings.add("shared", f"{self.name} is {site}/{number}, but {other} wrote {register.last} "
                                            f"{begun - acked:.1f} s later")


class Tally:
    """A counter that all sites increase by one."""

    def __init__(self, findings, name):
        self.findings, self.name = findings, name
        self.acked = collections.defaultdict(list)  # site: when
        self.unknowns = 0

    def acknowledged(self, site, now):
        self.acked[site].append(now)

    def unknown(self):
        self.unknowns += 1

    def roll_back(self, site, bound):
        times = self.acked[site]
        kept = bisect.bisect_left(times, bound)
        self.unknowns += len(times) - kept
        del times[kept:]

    def final(self, value):
        acked = sum(map(len, self.acked.values()))
        if not acked <= value <= acked + self.unknowns:
            each = ", ".join(f"{site} {len(times)}" for site, times in self.acked.items())
            self.findings.add("counters", f"{self.name} is {value} in the end: {acked} were acknowledged ({each}), "
                                          f"{self.unknowns} are unknown")


class Grave:
    """A key that is made once, deleted once (at that site, at that time) and never used again."""

    def __init__(self, key, made_at):
        self.key, self.made_at = key, made_at
        self.deleted_at, self.when = None, None

    def deleted(self, site, now):
        self.deleted_at, self.when = site, now

    def roll_back(self, site, bound):
        if self.deleted_at == site and self.when >= bound:
            self.deleted_at = None

    def final(self, findings, present):
        if self.deleted_at is not None and present:
            findings.add("deleted", f"{self.key} (of {self.made_at}) is there, and was deleted at {self.deleted_at}")


class Reach:
    """How far servers have what was written at sites: each site writes rising numbers all the time, and every server is asked for
    them. Rows of a site come in their order, so who has a number has all that was acknowledged before it was begun."""

    def __init__(self):
        self.begun = collections.defaultdict(list)   # site: when its number 1, 2, 3 … was begun
        self.seen = collections.defaultdict(list)    # (site, server): (when, number), both rising
        self.copies = []                             # (site or None, begin, end)

    def begin(self, site, now):
        self.begun[site].append(now)
        return len(self.begun[site])

    def shown(self, site, server, number, now):
        seen = self.seen[site, server]
        if number > (seen[-1][1] if seen else 0):
            seen.append((now, number))

    def time_of(self, site, number):
        """When that number was begun; 0 is before everything."""
        return self.begun[site][number - 1] if 0 < number <= len(self.begun[site]) else float("-inf")

    def copied(self, site, begin, end):
        """Meanwhile that site (None: any) may have copied the state of another one, which brings state of third sites, and not
        their messages."""
        self.copies.append((site, begin, end))

    def arrival(self, site, server, sent):
        """When the server was first seen to have everything that was acknowledged at the site before `sent`; None: never."""
        arrival = self.first_seen(site, server, sent)
        for receiver, begin, end in sorted(self.copies, key=lambda copy: copy[1]):
            if arrival is not None and receiver in (None, site_of(server)) and begin <= arrival <= end:
                arrival = self.first_seen(site, server, end)
        return arrival

    def first_seen(self, site, server, sent):
        number = bisect.bisect_left(self.begun[site], sent) + 1
        seen = self.seen[site, server]
        place = bisect.bisect_left(seen, number, key=lambda entry: entry[1])
        return seen[place][0] if place < len(seen) else None


class Excuses:
    """Which deliveries were owed to nobody. `too_late`: seconds after which a message may be too old on its arrival. Shaped as
    history.Doubts, for history.judge_streams; streams and subscribers name a server as SITE/NUMBER."""

    def __init__(self, reach, too_late):
        self.reach, self.too_late = reach, too_late
        self.lost = []      # (from site or None, to site or None, begin, end): messages between them may be gone for good
        self.back = []      # (site, begin, end): it came back, and had everything of all others
        self.excused = 0

    def lossy(self, source, target, begin, end):
        self.lost.append((source, target, begin, end))

    def returned(self, site, begin, end):
        """Meanwhile that site read all that it had missed, of one site after the other: what one of them wrote may be there
        before a message that another one sent earlier."""
        self.back.append((site, begin, end))

    def excuse(self, stream, sent, acked, subscriber):
        source, target = site_of(stream.server), site_of(subscriber.server)
        for a, b, begin, end in self.lost:
            if a in (None, source) and b in (None, target) and begin <= acked and sent <= end:
                return True
        returning = any(site == target and begin <= acked and sent <= end for site, begin, end in self.back)
        arrivals = [self.reach.arrival(site, subscriber.server, sent) for site in (list(self.reach.begun) if returning else [source])]
        return None in arrivals or max(arrivals) - sent > self.too_late


def site_of(server):
    return server.partition("/")[0]


class Listening(Subscriber):
    """One connection that subscribed to messages or to keyspace events."""

    def __init__(self, name, server, began):
        super().__init__(name, server, began)
        self.last_event = {}
        self.once = collections.Counter()  # (key, event) of keys that are made once

    def concerned(self, streams):
        """Those of which it received something, or that were published while it was there."""
        ended = float("inf") if self.ended is None else self.ended
        return [stream for stream in streams if stream.name in self.received or (
            stream.sent and stream.sent[stream.number] >= self.began and stream.sent[1] <= ended)]

    def told(self, key, event, only_once):
        self.last_event[key] = event
        if only_once and event in ("set", "del", "expired"):
            self.once[key, "gone" if event in GONE_EVENTS else event] += 1


def judge_stale(findings, stream, number, subscriber, now, max_age, tolerance):
    """A message that has just come. What was acknowledged so long ago was sent before that."""
    acked = stream.acked.get(number)
    if acked is not None and now - acked > max_age + tolerance:
        findings.add("message-stale", f"{subscriber.name} received {stream.name} {number} {now - acked:.1f} s after it was "
                                      f"acknowledged, at {findings.time_text(now)}")


def judge_views(findings, subscribers, exists, limit=5):
    """Of those that stayed connected to the end. `exists(key)`: whether it is there in the end."""
    for subscriber in subscribers:
        wrong = [f"{key} {event} ({'exists' if exists(key) else 'does not exist'})"
                 for key, event in subscriber.last_event.items()
                 if event not in MAYBE_GONE_EVENTS and (event in GONE_EVENTS) == bool(exists(key))]
        wrong += [f"{key} {event} (does not exist)" for key, event in subscriber.last_event.items()
                  if event in MAYBE_GONE_EVENTS and not exists(key)]
        if wrong and subscriber.ended is None:
            findings.add("view", f"{subscriber.name} was told last: {', '.join(wrong[:limit])} ({len(wrong)} in all)")


def judge_once(findings, subscribers, limit=5):
    for subscriber in subscribers:
        twice = [f"{key} {event} {times} times" for (key, event), times in subscriber.once.items() if times > 1]
        if twice:
            findings.add("event-once", f"{subscriber.name} was told {', '.join(twice[:limit])} ({len(twice)} in all)")
