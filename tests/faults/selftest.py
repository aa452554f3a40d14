"""Proves that the checker can fail: right histories pass, and each wrong one breaks its own rule and no other."""

import history


def counter(steps, final, rule="increments"):
    """steps: (floor, reply), or None for an unknown outcome."""
    def play(findings):
        one = history.Counter(findings, "c", rule)
        for step in steps:
            one.begin()
            if step is None:
                one.unknown()
            else:
                one.acknowledged(*step)
        one.final(final)
    return play


def register(steps, final):
    """steps: ("ok" | "del" | "unknown" | "unknown-del",) writes the next number; ("own", value); ("read", value, reader)."""
    def play(findings):
        one = history.Register(findings, "r")
        for what, *rest in steps:
            if what in ("ok", "del"):
                one.acknowledged(one.begin(what == "del"))
            elif what in ("unknown", "unknown-del"):
                one.unknown(one.begin(what == "unknown-del"))
            elif what == "own":
                one.read_by_owner(*rest)
            else:
                one.read(*rest)
        one.final(final)
    return play


def race(won, lost, unknown, final):
    def play(findings):
        one = history.Race(findings, "lock")
        one.won, one.lost, one.unknowns = won, lost, unknown
        one.final(final)
    return play


def halves(*values):
    return lambda findings: history.check_halves(findings, "pair", values, "server 1")


def streams(received, acked=(1, 2, 3), kind="message", began=0.0, ended=None, doubt=None, kill=None):
    """Messages 1 to 3 are sent at 1, 2, 3 seconds and acknowledged half a second later."""
    def play(findings):
        stream = history.Stream("p", "server 1", kind)
        for _ in range(3):
            number = stream.begin(stream.number + 1.0)
            if number in acked:
                stream.acknowledged(number, number + 0.5)
        subscriber = history.Subscriber("s", "server 2", began)
        subscriber.ended = ended
        for number in received:
            subscriber.got("p", number)
        doubts = history.Doubts()
        if doubt:
            doubts.begin("server 1", doubt[0])
            doubts.end("server 1", doubt[1])
        if kill:
            doubts.killed("server 1", kill)
        history.judge_streams(findings, [stream], [subscriber], doubts)
    return play


# (what, the rule that must be broken or None, history)
CASES = [
    ("increments in turn", None, counter([(0, 1), (1, 2), (2, 3)], 3)),
    ("replies of concurrent increments cross", None, counter([(0, 2), (0, 1)], 2)),
    ("an unknown increment that happened", None, counter([(0, 1), None], 2)),
    ("an unknown increment that did not", None, counter([(0, 1), None], 1)),
    ("an acknowledged increment is lost", "increments", counter([(0, 1), (1, 2)], 1)),
    ("an increment was done twice", "increments", counter([(0, 1), (1, 2)], 3)),
    ("an unknown increment was done twice", "increments", counter([(0, 1), None], 3)),
    ("two increments had one reply", "increments", counter([(0, 1), (0, 1), None], 2)),
    ("an increment did not see an earlier one", "increments", counter([(0, 2), (2, 1)], 2)),
    ("a WATCH let an update be lost", "watch", counter([(0, 1), (0, 1)], 1, "watch")),
    ("the last value", None, register([("ok",), ("ok",)], 2)),
    ("a later unknown value", None, register([("ok",), ("unknown",)], 2)),
    ("a later unknown value that did not happen", None, register([("ok",), ("unknown",)], 1)),
    ("a deleted key", None, register([("ok",), ("del",), ("own", None)], None)),
    ("a reader that lags", None, register([("ok",), ("ok",), ("read", 1, "s2"), ("read", 2, "s2")], 2)),
    ("an acknowledged write is lost", "writes", register([("ok",), ("ok",)], 1)),
    ("all is lost", "writes", register([("ok",)], None)),
    ("an unknown write beats a later acknowledged one", "writes", register([("ok",), ("unknown",), ("ok",)], 2)),
    ("an unknown write is seen, then gone", "writes", register([("ok",), ("unknown",), ("own", 2), ("own", 1)], 2)),
    ("a writer does not see its write", "writes", register([("ok",), ("ok",), ("own", 1)], 2)),
    ("a deleted key is back", "writes", register([("ok",), ("del",)], 1)),
    ("a value out of nothing", "writes", register([("ok",), ("read", 7, "s2")], 1)),
    ("a reader goes back", "time", register([("ok",), ("ok",), ("read", 2, "s2"), ("read", 1, "s2")], 2)),
    ("a lock won once", None, race(["a"], ["b"], [], "a")),
    ("a lock won by an unknown one", None, race([], ["b"], ["a"], "a")),
    ("a lock that nobody took for certain", None, race([], [], ["a", "b"], None)),
    ("a lock won twice", "set-nx", race(["a", "b"], [], [], "a")),
    ("a lock won by one and held by another", "set-nx", race(["a"], [], ["b"], "b")),
    ("a lock lost by all", "set-nx", race([], ["a", "b"], [], None)),
    ("a lock held by a loser", "set-nx", race([], ["a", "b"], [], "a")),
    ("both halves", None, halves(3, 3, 3)),
    ("both absent", None, halves(None, None)),
    ("two halves", "halves", halves(3, 4, 3)),
    ("half a delete", "halves", halves(3, None)),
    ("all messages in order", None, streams([1, 2, 3])),
    ("an unknown message did not come", None, streams([1, 3], acked=(1, 3))),
    ("subscribed later", None, streams([3], began=2.2)),
    ("the connection broke", None, streams([1], ended=2.2)),
    ("the end of a broken connection's time", None, streams([1], ended=4)),
    ("a message twice", "message-once", streams([1, 2, 2, 3])),
    ("a message from nowhere", "message-once", streams([1, 2, 3, 4])),
    ("out of order", "message-order", streams([2, 1, 3])),
    ("an acknowledged message is lost", "message-all", streams([1, 3])),
    ("the last message is lost", "message-all", streams([1, 2])),
    ("a gap before the connection broke", "message-all", streams([1, 3], ended=4)),
    ("lost long before the connection broke", "message-all", streams([1], ended=30)),
    ("lost with its server while the database was away", None, streams([1], doubt=(1.9, 5), kill=4)),
    ("lost while the database was away, but nobody died", "message-all", streams([1], doubt=(1.9, 5))),
    ("too old after a long outage", None, streams([1], doubt=(1.9, 15))),
    ("too old after a long outage that began just then", None, streams([1, 2], doubt=(3.5, 15))),
    ("lost just before a short outage", "message-all", streams([1, 2], doubt=(3.5, 7))),
    ("lost well before a long outage", "message-all", streams([1], doubt=(3.5, 15))),
    ("an event twice", "event-once", streams([1, 1, 2, 3], kind="event")),
    ("events out of order", "event-order", streams([2, 1, 3], kind="event")),
    ("an unknown write's event comes late", None, streams([1, 3, 2], acked=(1, 3), kind="event")),
    ("an event is lost", "event-all", streams([1, 2], kind="event")),
]


def run():
    """Prints what went wrong; (passed, failed)."""
    failed = 0
    for what, rule, play in CASES:
        findings = history.Findings()
        play(findings)
        broken = [name for name, found in findings.by_rule.items() if found]
        if broken != ([rule] if rule else []):
            print(f"{what}: should break {rule or 'nothing'}, breaks {broken or 'nothing'}")
            failed += 1
    unproven = {"increments", "watch", "writes", "time", "set-nx", "halves", "message-once", "message-order", "message-all",
                "event-once", "event-order", "event-all"} - {rule for _, rule, _ in CASES}
    if unproven:
        print(f"no wrong history for {sorted(unproven)}")
        failed += 1
    return len(CASES) + 1 - failed, failed
