"""What clients saw, and whether a site that keeps its promises can have shown it. No I/O and no clock: whoever drives the
clients reports what happened and when (seconds of one monotonic clock), and `judge` says what is wrong.

An operation ends in one of three ways: acknowledged, refused (it certainly did not happen) or unknown (the connection broke, or
the error begins with CLUSTERDOWN): it may have happened, or happen yet.
"""

import collections

# What is judged, in the order of the report: each rule passes or fails as a whole.
RULES = {
    "increments": "INCR: no acknowledged one lost, none done twice, replies unique and rising",
    "watch": "WATCH/EXEC increments: no update lost",
    "writes": "last acknowledged SET or DEL is in force, or a later one of unknown outcome",
    "time": "no reader is shown an older value than before",
    "set-nx": "SET NX is won once",
    "halves": "EXEC is never seen in halves",
    "message-once": "no message twice on one connection",
    "message-order": "messages of one publisher and channel in order",
    "message-all": "acknowledged messages reach every subscriber that stayed connected",
    "event-once": "no keyspace event twice on one connection",
    "event-order": "keyspace events of one client in order",
    "event-all": "the event of every acknowledged write reaches every subscriber that stayed connected",
    "replies": "no reply but what is promised, and none missing",
    "processes": "no server ends, complains or hangs by itself",
    "service": "service is back in time after the last fault",
    "same": "all servers hold the same state in the end, also after a restart",
    "sql": "isthmus.current shows the same state",
    "expiry": "expired keys are gone everywhere",
    "secrets": "the password of the database stands in no log and not in INFO",
}

# A message that its server could not commit for this long may be dropped as too old (--message-max-age, less a margin).
STALE_SECONDS = 8.0
# A feed that broke may not have brought yet what was acknowledged in the last moment before.
UNREAD_SECONDS = 1.0
# What a subscriber may still have been owed when its connection broke: messages of the last seconds before that.
TAIL_SECONDS = 12.0


class Findings:
    """What is wrong, by rule. `time_text` shows a time of the caller's clock as the servers' logs do."""

    def __init__(self, time_text=str, rules=RULES):
        self.time_text = time_text
        self.by_rule = collections.OrderedDict((rule, []) for rule in rules)

    def add(self, rule, text):
        self.by_rule[rule].append(text)

    def count(self):
        return sum(map(len, self.by_rule.values()))


class Counter:
    """A number that many clients increase by one. `begin` before each increment, then one of the other two."""

    def __init__(self, findings, name, rule="increments"):
        self.findings, self.name, self.rule = findings, name, rule
        self.acked, self.unknowns, self.highest = 0, 0, 0
        self.seen = {}  # value: who got it, and when

    def begin(self):
        """What the reply must exceed."""
        return self.highest

    def acknowledged(self, floor, value, who="somebody", now=0.0):
        """`who` got the reply `now`."""
        self.acked += 1
        told = f"{who} at {self.findings.time_text(now)}"
        if value in self.seen:
            self.findings.add(self.rule, f"{self.name}: {value} was the reply to two increments: of {self.seen[value]} and of "
                                         f"{told}")
        elif value <= floor:
            self.findings.add(self.rule, f"{self.name}: {value} was the reply to {told}, after another client had {floor}")
        self.seen[value] = told
        self.highest = max(self.highest, value)

    def unknown(self):
        self.unknowns += 1

    def final(self, value):
        if not max(self.acked, self.highest) <= value <= self.acked + self.unknowns:
            self.findings.add(self.rule, f"{self.name} is {value} in the end: {self.acked} increments were acknowledged "
                                         f"(highest reply {self.highest}), {self.unknowns} are unknown")


class Register:
    """A key (or several that are always written together) that one client writes, with rising numbers; number 0 stands for
    the absent key before the first write. A delete is a write, too."""

    def __init__(self, findings, name):
        self.findings, self.name = findings, name
        self.number = 0
        self.last = 0            # in force for certain, unless a later unknown one is
        self.unknowns = set()    # later than `last`
        self.deletes = {0}
        self.shown = {}          # reader: highest number seen

    def begin(self, delete=False):
        """The number to write."""
        self.number += 1
        if delete:
            self.deletes.add(self.number)
        return self.number

    def acknowledged(self, number):
        self.last = number
        self.unknowns = {n for n in self.unknowns if n > number}

    def unknown(self, number):
        self.unknowns.add(number)

    def allowed(self):
        return {self.last} | self.unknowns

    def _check(self, value, where):
        numbers = self.allowed()
        if value is None:
            good = bool(numbers & self.deletes)
        else:
            good = value in numbers - self.deletes
            if good:
                self.acknowledged(value)
        if not good:
            self.findings.add("writes", f"{self.name} is {'absent' if value is None else value} {where}: {self.last}"
                              f"{' (a delete)' if self.last in self.deletes else ''} was acknowledged last, "
                              f"unknown since: {sorted(self.unknowns) or 'none'}")

    def read_by_owner(self, value):
        """Through the server that the writing client is connected to, with no write under way."""
        self._check(value, "for its own writer")

    def read(self, value, reader, now=0.0):
        """By somebody who may lag behind, but never goes back."""
        if value is None:
            return
        if value > self.number or value in self.deletes:
            self.findings.add("writes", f"{self.name} is {value} at {reader}, which nobody wrote")
        if value < self.shown.get(reader, 0):
            self.findings.add("time", f"{self.name} is {value} at {reader}, after {self.shown[reader]} was read there, at "
                                      f"{self.findings.time_text(now)}")
        self.shown[reader] = max(value, self.shown.get(reader, 0))

    def final(self, value):
        self._check(value, "in the end")


class Race:
    """Several clients try SET NX on one key."""

    def __init__(self, findings, name):
        self.findings, self.name = findings, name
        self.won, self.lost, self.unknowns = [], [], []

    def final(self, value):
        if len(self.won) > 1:
            self.findings.add("set-nx", f"{self.name} was won by {' and '.join(self.won)}")
        elif self.won and value != self.won[0]:
            self.findings.add("set-nx", f"{self.name} was won by {self.won[0]} and holds {value}")
        elif not self.won and value is not None and value not in self.unknowns:
            self.findings.add("set-nx", f"{self.name} was won by nobody and holds {value}")
        elif not self.won and self.lost and value is None:
            self.findings.add("set-nx", f"{self.name} was lost by {self.lost[0]} and won by nobody")


def check_halves(findings, name, values, reader):
    """Values that are only ever written together, as one reader saw them at once."""
    if len(set(values)) > 1:
        findings.add("halves", f"{name} at {reader}: {' / '.join(map(str, values))}")


class Stream:
    """The numbered messages of one publisher to one channel, or the numbered writes of one client whose events are awaited.
    `server` is where that client is connected."""

    def __init__(self, name, server, kind):
        self.name, self.server, self.kind = name, server, kind  # kind: "message" or "event"
        self.number = 0
        self.sent = {}   # number: when
        self.acked = {}  # number: when

    def begin(self, now):
        self.number += 1
        self.sent[self.number] = now
        return self.number

    def acknowledged(self, number, now):
        self.acked[number] = now


class Subscriber:
    """One connection that subscribed to everything at `began`, when its subscriptions were acknowledged."""

    def __init__(self, name, server, began):
        self.name, self.server, self.began = name, server, began
        self.ended = None
        self.received = collections.defaultdict(list)  # stream's name: numbers in the order of arrival

    def got(self, stream_name, number):
        self.received[stream_name].append(number)


class Doubts:
    """Times at which a server may have been without its database, and when it was killed. Messages that it acknowledged
    meanwhile were not promised to anybody else."""

    def __init__(self):
        self.spans = collections.defaultdict(list)  # server: [begin, end or None]
        self.kills = collections.defaultdict(list)  # server: times
        self.excused = 0  # deliveries that were missing for a reason

    def begin(self, server, now):
        spans = self.spans[server]
        if not spans or spans[-1][1] is not None:
            spans.append([now, None])

    def end(self, server, now):
        spans = self.spans[server]
        if spans and spans[-1][1] is None:
            spans[-1][1] = now

    def killed(self, server, now):
        self.kills[server].append(now)

    def _span(self, server, when, before=0.0):
        """The span in which that time is, or which began up to `before` seconds later."""
        for begin, end in self.spans[server]:
            if begin - before <= when and (end is None or when <= end):
                return begin, float("inf") if end is None else end
        return None

    def excuse(self, stream, sent, acked, subscriber):
        """Whether a message may have been lost or be too old when it arrived."""
        span = self._span(stream.server, acked)
        if span and any(acked <= kill <= span[1] + STALE_SECONDS for kill in self.kills[stream.server]):
            return True
        spans = [self._span(server, when) for server in (stream.server, subscriber.server) for when in (sent, acked)]
        spans.append(self._span(subscriber.server, acked, UNREAD_SECONDS))
        return any(span and span[1] - sent > STALE_SECONDS for span in spans)


def judge_streams(findings, streams, subscribers, doubts, limit=20):
    """Once, order and completeness of all that was received. At most `limit` findings for each subscriber."""
    by_name = {stream.name: stream for stream in streams}
    for subscriber in subscribers:
        before = findings.count()
        for name, numbers in subscriber.received.items():
            stream = by_name.get(name)
            if stream is None or max(numbers) > stream.number:
                findings.add("message-once", f"{subscriber.name} received of {name} what nobody sent")
                continue
            _judge_sequence(findings, stream, subscriber, numbers)
        for stream in streams:
            if findings.count() - before > limit:
                break
            _judge_missing(findings, stream, subscriber, doubts)


def _judge_sequence(findings, stream, subscriber, numbers):
    repeated = [n for n, times in collections.Counter(numbers).items() if times > 1]
    if repeated:
        findings.add(f"{stream.kind}-once", f"{subscriber.name} received {stream.name} {repeated[:5]} more than once "
                                            f"({len(repeated)} in all)")
    # A write of unknown outcome may come into force after later ones; a message may not overtake another in any case.
    ordered = [n for n in numbers if stream.kind == "message" or n in stream.acked]
    wrong = next(((a, b) for a, b in zip(ordered, ordered[1:]) if b < a), None)
    if wrong:
        findings.add(f"{stream.kind}-order", f"{subscriber.name} received {stream.name} {wrong[1]} after {wrong[0]}")


def _judge_missing(findings, stream, subscriber, doubts):
    received = set(subscriber.received.get(stream.name, ()))
    highest = max(received, default=0)
    missing = []
    for number, acked in stream.acked.items():
        sent = stream.sent[number]
        if number in received or sent <= subscriber.began:
            continue
        owed = subscriber.ended is None or number < highest or acked < subscriber.ended - TAIL_SECONDS
        # What was acknowledged after the connection's end was owed to nobody there.
        if subscriber.ended is not None and acked >= subscriber.ended:
            owed = False
        if owed and doubts.excuse(stream, sent, acked, subscriber):
            doubts.excused += 1
        elif owed:
            missing.append(number)
    if missing:
        findings.add(f"{stream.kind}-all", f"{subscriber.name} lacks {stream.name} {sorted(missing)[:5]} "
                                           f"({len(missing)} in all; {len(received)} came), acknowledged at "
                                           f"{findings.time_text(stream.acked[min(missing)])}")
