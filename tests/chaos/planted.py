"""Proves that the judge of a chaos run can fail: right histories pass, and each wrong one breaks its own rule and no other."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faults"))

import history  # noqa: E402  (the path is set above)
import records  # noqa: E402
import workload  # noqa: E402

SITES = ("a", "b")


class Hands:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def play_register(register, clock, steps):
    """steps: (when, "ok" | "del" | "unknown" | "back", time of the bound)"""
    for when, what, *rest in steps:
        clock.now = when
        if what == "back":
            register.roll_back(*rest)
            continue
        number = register.begin(what == "del")
        clock.now = when + 0.1
        if what == "unknown":
            register.unknown(number)
        else:
            register.acknowledged(number)


def register(steps, final):
    def play(findings):
        clock = Hands()
        one = records.TimedRegister(findings, "r", clock)
        play_register(one, clock, steps)
        one.final(final)
    return play


def shared(steps_of_a, steps_of_b, final):
    def play(findings):
        clock = Hands()
        key = records.SharedKey(findings, "k", SITES, clock)
        play_register(key.registers["a"], clock, steps_of_a)
        play_register(key.registers["b"], clock, steps_of_b)
        key.final(final)
    return play


def tally(acked_a, acked_b, unknown, final, bound=None):
    def play(findings):
        one = records.Tally(findings, "c")
        for site, times in (("a", acked_a), ("b", acked_b)):
            for when in times:
                one.acknowledged(site, when)
        for _ in range(unknown):
            one.unknown()
        if bound is not None:
            one.roll_back("a", bound)
        one.final(final)
    return play


def grave(deleted, present, bound=None):
    def play(findings):
        one = records.Grave("g", "a")
        if deleted is not None:
            one.deleted("b", deleted)
        if bound is not None:
            one.roll_back("b", bound)
        one.final(findings, present)
    return play


def streams(received, acked=(1, 2, 3), lossy=None, arrival_delay=0.1, began=0.0, ended=None, copied=None):
    """Site a sends messages 1 to 3 at 1, 2, 3 seconds, acknowledged a tenth later; a server of b has what a wrote so much later.
    `copied`: (when, end): it is shown all numbers up to that time at once, by a copy of a third site's state."""
    def play(findings):
        reach = records.Reach()
        for step in range(1, 60):
            reach.begin("a", step / 10)
        for number in range(1, 60):
            shown = number / 10 + arrival_delay
            if copied and number / 10 <= copied[0]:
                shown = min(shown, copied[0])
            reach.shown("a", "b/1", number, shown)
        if copied:
            reach.copied("b", *copied)
        stream = history.Stream("p", "a/1", "message")
        for _ in range(3):
            number = stream.begin(stream.number + 1.0)
            if number in acked:
                stream.acknowledged(number, number + 0.1)
        subscriber = records.Listening("s", "b/1", began)
        subscriber.ended = ended
        for number in received:
            subscriber.got("p", number)
        excuses = records.Excuses(reach, 8.0)
        if lossy:
            excuses.lossy(*lossy)
        history.judge_streams(findings, subscriber.concerned([stream]), [subscriber], excuses)
    return play


def stale(arrived, tolerance=1.0):
    def play(findings):
        stream = history.Stream("p", "a/1", "message")
        stream.acknowledged(stream.begin(1.0), 2.0)
        records.judge_stale(findings, stream, 1, records.Listening("s", "b/1", 0.0), arrived, 10.0, tolerance)
    return play


def events(told, present, ended=None, once=False):
    def play(findings):
        subscriber = records.Listening("s", "b/1", 0.0)
        subscriber.ended = ended
        for event in told:
            subscriber.told("k", event, once)
        records.judge_views(findings, [subscriber], lambda key: present)
        records.judge_once(findings, [subscriber])
    return play


# (what, the rule that must be broken or None, history)
CASES = [
    ("the last value", None, register([(1, "ok"), (2, "ok")], 2)),
    ("an unknown value that happened", None, register([(1, "ok"), (2, "unknown")], 2)),
    ("a deleted key", None, register([(1, "ok"), (2, "del")], None)),
    ("an acknowledged write is lost", "writes", register([(1, "ok"), (2, "ok")], 1)),
    ("a deleted key is back", "writes", register([(1, "ok"), (2, "del")], 1)),
    ("an unknown write beats a later one", "writes", register([(1, "unknown"), (2, "ok")], 1)),
    ("lost with a database, and nowhere else", None, register([(1, "ok"), (2, "ok"), (3, "back", 2)], 1)),
    ("not lost though it might be", None, register([(1, "ok"), (2, "ok"), (3, "back", 2)], 2)),
    ("lost with a database, but others had it", "writes", register([(1, "ok"), (2, "ok"), (3, "back", 2.5)], 1)),
    ("lost after the database was put back", "writes", register([(1, "ok"), (2, "back", 1), (3, "ok")], 1)),
    ("a key of two sites", None, shared([(1, "ok")], [(2, "ok")], "b/1")),
    ("a concurrent write of the other site wins", None, shared([(1, "ok")], [(2, "ok")], "a/1")),
    ("a delete of one of two sites", None, shared([(1, "ok")], [(2, "del")], None)),
    ("neither site's last write", "shared", shared([(1, "ok"), (2, "ok")], [(3, "ok")], "a/1")),
    ("what nobody wrote", "shared", shared([(1, "ok")], [(2, "ok")], "b/7")),
    ("absent without a delete", "shared", shared([(1, "ok")], [], None)),
    ("absent by an older delete", "shared", shared([(1, "del"), (2, "ok")], [(3, "ok")], None)),
    ("a write from long before wins", "shared", shared([(1, "ok")], [(20, "ok")], "a/1")),
    ("a counter of two sites", None, tally([1, 2], [1], 0, 3)),
    ("a counter with an unknown increment", None, tally([1, 2], [1], 1, 4)),
    ("a counter that lost one site", "counters", tally([1, 2], [1], 0, 2)),
    ("a counter that counted twice", "counters", tally([1, 2], [1], 0, 4)),
    ("increments lost with a database", None, tally([1, 2], [1], 0, 2, bound=2)),
    ("more increments lost than a database had alone", "counters", tally([1, 2], [1], 0, 1, bound=2)),
    ("a deleted key is gone", None, grave(1, False)),
    ("a delete of unknown outcome", None, grave(None, True)),
    ("a deleted key comes back", "deleted", grave(1, True)),
    ("a delete was lost with a database", None, grave(1, True, bound=1)),
    ("a delete that others had was lost", "deleted", grave(1, True, bound=2)),
    ("all messages in order", None, streams([1, 2, 3])),
    ("subscribed later", None, streams([3], began=2.2)),
    ("the connection broke", None, streams([1], ended=2.05)),
    ("a message twice", "message-once", streams([1, 2, 2, 3])),
    ("a message from nowhere", "message-once", streams([1, 2, 3, 4])),
    ("out of order", "message-order", streams([2, 1, 3])),
    ("an acknowledged message is lost", "message-all", streams([1, 3])),
    ("the last message is lost", "message-all", streams([1, 2])),
    ("lost with a slot", None, streams([1, 3], lossy=("a", "b", 1.5, 2.5))),
    ("lost with another site's slot", "message-all", streams([1, 3], lossy=("b", "a", 1.5, 2.5))),
    ("lost before the slot was", "message-all", streams([1, 3], lossy=("a", "b", 2.5, 3.5))),
    ("too late after a long cut", None, streams([], arrival_delay=9.0)),
    ("lost after a short cut", "message-all", streams([1, 3], arrival_delay=5.0)),
    ("too late, though a copy brought the state early", None, streams([], arrival_delay=9.0, copied=(4.0, 5.0))),
    ("lost while a copy brought the state", "message-all", streams([1, 3], arrival_delay=2.0, copied=(3.5, 4.0))),
    ("a message that is in time", None, stale(12.5)),
    ("a message after its time", "message-stale", stale(13.5)),
    ("while a clock is wrong", None, stale(13.5, tolerance=4.0)),
    ("a key that exists", None, events(["set", "del", "set", "expire"], True)),
    ("a key that does not", None, events(["set", "expired"], False)),
    ("a hash without fields", None, events(["hset", "hdel", "del"], False)),
    ("a delete that nobody was told", "view", events(["set"], False)),
    ("the end of a hash that nobody was told", "view", events(["hset", "hdel"], False)),
    ("a delete that was none", "view", events(["set", "del"], True)),
    ("a subscriber that left", None, events(["set"], False, ended=5)),
    ("made and deleted once", None, events(["set", "del"], False, once=True)),
    ("deleted twice", "event-once", events(["set", "del", "del"], False, once=True)),
    ("deleted, and expired as well", "event-once", events(["set", "expired", "del"], False, once=True)),
    ("made twice", "event-once", events(["set", "set", "del"], False, once=True)),
]


def check_trouble():
    """A site's trouble lasts until a write that was sent after its end succeeds; what is wrong with that, or nothing."""
    trouble = workload.Trouble()
    trouble.begin(1.0)
    trouble.begin(2.0)
    trouble.end(3.0)
    trouble.good(3.5, 3.6)
    if not trouble.touches(100, 101):
        return "a second fault was forgotten"
    trouble.end(4.0)
    trouble.good(3.9, 4.1)
    if not trouble.touches(100, 101):
        return "a write from before the end ended it"
    trouble.good(4.2, 4.3)
    if trouble.touches(100, 101) or not trouble.touches(4.0, 101) or trouble.touches(0.0, 0.5):
        return "the span is not from 1.0 to 4.3"
    return None


def check_refusal():
    """A refused write is excused by a long stall of the machine that was measured, and by nothing else; what is wrong, or nothing."""
    lag = workload.Lag()
    if lag.explains_refusal(0.0, 0.1):
        return "excused without a stall"
    lag.stalls.append((100.0, 100.0 + workload.SLOW_SECONDS - 0.1))
    if lag.explains_refusal(103.0, 104.0):
        return "excused by a short stall"
    lag.stalls.append((200.0, 205.0))
    if not lag.explains_refusal(200.5, 205.1) or not lag.explains_refusal(206.0, 206.1):
        return "not excused by a stall"
    if lag.explains_refusal(198.0, 201.0) or lag.explains_refusal(214.0, 214.1):
        return "excused by a stall of another time"
    lag.flushing = 300.0
    if not lag.explains_refusal(300.1, 305.2):
        return "not excused by a stall that goes on"
    return None


def run():
    """Prints what went wrong; (passed, failed)."""
    failed = 0
    for what, rule, play in CASES:
        findings = history.Findings(rules=records.RULES)
        play(findings)
        broken = [name for name, found in findings.by_rule.items() if found]
        if broken != ([rule] if rule else []):
            print(f"{what}: should break {rule or 'nothing'}, breaks {broken or 'nothing'}")
            failed += 1
    for name, check in (("trouble", check_trouble), ("refusal", check_refusal)):
        if wrong := check():
            print(f"{name}: {wrong}")
            failed += 1
    # The others are judged by the driver itself, from servers and databases that are there.
    unproven = {"writes", "shared", "counters", "deleted", "message-once", "message-order", "message-all", "message-stale",
                "event-once", "view"} - {rule for _, rule, _ in CASES}
    if unproven:
        print(f"no wrong history for {sorted(unproven)}")
        failed += 1
    return len(CASES) + 3 - failed, failed
