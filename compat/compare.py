#!/usr/bin/env python3
"""Runs the cases of compat/cases on redis-server and on ours, in RESP2 and RESP3, and fails on every difference that is not
listed in differences.md.

After each case the keyspace events it raised (exact order) and the state it left (keys, types, values, TTLs) are compared too.

    compat/compare.py --server build/release/isthmus [--backend memory:] [--only hash,keys.txt:12] [--proto 2] [-v]
    compat/compare.py --server redis        # redis-server against itself: all equal, or the comparison has a fault
"""

import glob
import os
import re
import sys
import time

import case_run
import caselang
import differences
import normalise
import resp
import servers
from case_run import failure
from resp import Reply

HERE = os.path.dirname(os.path.abspath(__file__))
EXPIRY_SECONDS = 15.0  # how late the event of an expired key may come
DIFFERENT_SECONDS = 1.0  # how long a case that shows a difference awaits what redis-server has
SYNC_CHANNEL = "compat-sync"
DATABASES = 16
CHANGED_PARAMETERS = [
    "hash-max-listpack-entries", "hash-max-listpack-value", "slowlog-log-slower-than", "slowlog-max-len", "maxmemory",
    "maxmemory-policy", "timeout", "client-output-buffer-limit", "latency-monitor-threshold", "proto-max-bulk-len"
]


class Transcript:
    """What one case gave on one server."""

    def __init__(self):
        self.answers = []  # for each step the list of its replies
        self.leftover = []  # for each connection what came and was not asked for
        self.events = []
        self.state = []
        self.failed = False


class Target:
    """One server under comparison, with a connection to set up and look, and one that hears keyspace events."""

    def __init__(self, program, backend="memory:", options="", port=None):
        words = options.split()
        password = words[words.index("--requirepass") + 1] if "--requirepass" in words else None
        rest = [w for i, w in enumerate(words) if w != "--requirepass" and words[i - 1] != "--requirepass"]
        self.server = None if port else servers.Server(program, backend, password, rest)
        self.port = port or self.server.port
        self.password = password
        self.sync_count = 0
        self.connect()
        self.parameters_changed = False
        self.defaults = {}
        for name in CHANGED_PARAMETERS:
            reply = self.admin.command("CONFIG", "GET", name)
            if reply.kind == "array" and len(reply.value) == 2:
                self.defaults[name] = reply.value[1].value

    def connect(self):
        self.admin = resp.Client(self.port)
        self.events = resp.Client(self.port)
        for client in (self.admin, self.events):
            if self.password:
                client.command("AUTH", self.password)
        self.events.send("PSUBSCRIBE", "__key*__:*")
        self.events.read_reply()
        self.events.send("SUBSCRIBE", SYNC_CHANNEL)
        self.events.read_reply()

    def close(self):
        self.admin.close()
        self.events.close()
        return self.server.stop() if self.server else None

    def prepare(self, case):
        """An empty server with the parameters of its start, that raises the events the case wants."""
        commands = [("CONFIG", "SET", "notify-keyspace-events", ""), ("FLUSHALL",)]
        names = {step.words[0].upper() for step in case.steps if step.words and isinstance(step.words[0], bytes)}
        if self.parameters_changed:
            commands += [("CONFIG", "SET", name, value) for name, value in self.defaults.items()]
        self.parameters_changed = b"CONFIG" in names
        if b"SLOWLOG" in names:
            commands.append(("SLOWLOG", "RESET"))
        if case.events != "off":
            commands.append(("CONFIG", "SET", "notify-keyspace-events", case.events))
        self.admin.pipeline(commands + [("PUBLISH", SYNC_CHANNEL, "begin")])

    def run(self, case, protocol, start_time, expected=None):
        """`expected` is what the reference gave, with which this is going to be compared."""
        transcript = Transcript()
        self.prepare(case)
        step_seconds, event_seconds = patience(case if expected else None)
        runner = case_run.CaseRun(self.port, protocol, transcript, start_time, step_seconds)
        try:
            for step in case.steps:
                transcript.answers.append(runner.step(step))
        finally:
            transcript.leftover = runner.finish()
        transcript.failed = runner.failed
        if case.state:
            transcript.state = self.state()
        self.collect_events(transcript, len(expected.events) if expected else 0, event_seconds)
        return transcript

    def collect_events(self, transcript, wanted, seconds):
        """Takes what came up to a mark; then, while there are fewer than wanted, what comes soon after it (an expiry)."""
        self.sync_count += 1
        mark = str(self.sync_count).encode()
        self.admin.command("PUBLISH", SYNC_CHANNEL, mark)
        marked = False
        try:
            while not marked or len(transcript.events) < wanted:
                values = self.events.read_push(seconds if marked else case_run.STEP_SECONDS).plain()
                if values[0] == b"message" and values[2] == b"begin":
                    transcript.events.clear()  # what an earlier case was late with
                elif values[0] == b"message":
                    marked = marked or values[2] == mark
                else:
                    transcript.events.append(Reply("array", [Reply("bulk", v) for v in values[2:]]))
        except resp.Timeout:
            if not marked:
                transcript.events.append(failure("the events connection hears nothing"))

    def state(self):
        """All keys of all databases with type, value and remaining time."""
        listing = []
        for db in range(DATABASES):
            # SCAN deletes the expired keys that it meets, so their events come before the mark.
            listing += [("SELECT", db), ("SCAN", 0, "COUNT", 1000000)]
        keys = [(db, key.value) for db, reply in enumerate(self.admin.pipeline(listing)[1::2])
                for key in sorted(reply.value[1].value, key=Reply.text)]
        if not keys:
            return []
        commands = []
        for db, key in keys:
            commands += [("SELECT", db), ("TYPE", key), ("PTTL", key), ("GET", key), ("HGETALL", key), ("SMEMBERS", key)]
        replies = self.admin.pipeline(commands + [("SELECT", 0)])
        lines = []
        for i, (db, key) in enumerate(keys):
            _, kind, left, text, fields, members = replies[6 * i:6 * i + 6]
            value = normalise.value_of(kind, text, fields, members)
            # The number of the database is a text, so that no tolerance holds for it.
            lines.append(Reply("array", [Reply("bulk", b"%d" % db), Reply("bulk", key), kind, left, value]))
        return lines


class Comparison:
    """Runs cases on both sides and counts."""

    def __init__(self, program, backend, reference="redis", verbose=False, ports=None):
        self.program = program
        self.backend = backend
        self.reference = reference
        self.verbose = verbose
        self.ports = ports  # (reference, ours) of servers that run already
        self.pairs = {}
        self.passed = 0
        self.failures = []
        self.seen_differences = set()
        self.seconds = {}

    def pair(self, options):
        if options not in self.pairs:
            if self.ports:
                self.pairs[options] = (Target("redis", port=self.ports[0]), Target("redis", port=self.ports[1]))
            else:
                self.pairs[options] = (Target(self.reference, "memory:", options),
                                       Target(self.program, self.backend, options))
        return self.pairs[options]

    def close(self):
        for pair in self.pairs.values():
            for target in pair:
                target.close()
        self.pairs = {}

    def run(self, cases, protocols):
        try:
            for case in cases:
                for protocol in case.protocols:
                    if protocol in protocols:
                        self.run_case(case, protocol)
            self.check_logs()
        finally:
            self.close()

    def run_case(self, case, protocol):
        began = time.monotonic()
        self.compare_case(case, protocol)
        self.seconds[case.name] = self.seconds.get(case.name, 0) + time.monotonic() - began

    def slowest(self, count=10):
        """The cases that took longest: [(name, seconds)]."""
        return sorted(self.seconds.items(), key=lambda item: -item[1])[:count]

    def compare_case(self, case, protocol):
        reference, ours = self.pair(case.server)
        start = caselang.now()
        try:
            expected = reference.run(case, protocol, start)
            actual = ours.run(case, protocol, start, expected)
        except (resp.Closed, resp.Timeout, resp.ProtocolError, OSError) as error:
            self.lost(case, protocol, ours, error)
            return
        found = self.differences(case, expected, actual)
        if found:
            self.failures.append((case, protocol, found))
            self.report(case, protocol, found)
        else:
            self.passed += 1

    def lost(self, case, protocol, ours, error):
        """The server under test went away, or no longer serves the connections of the runner: starts a new pair."""
        found = [("the server is gone or does not answer", str(error), "")]
        if ours.server and not ours.server.alive():
            found.append(("end of its log", "", ours.server.log_tail()))
        self.failures.append((case, protocol, found))
        self.report(case, protocol, found)
        for target in self.pairs.pop(case.server):
            target.close()

    def check_logs(self):
        for pair in self.pairs.values():
            for target in pair:
                for line in target.server.complaints() if target.server else []:
                    print(f"FAIL the log says: {line}")
                    self.failures.append((None, 0, [("log", "", line)]))

    def differences(self, case, expected, actual):
        """[(what, redis, ours)] without what is listed as deliberate."""
        found = []
        if expected.failed:
            found.append(("the case does not work on redis-server", texts(sum(expected.answers, [])), ""))
        for step, theirs, ours in zip(case.steps, expected.answers, actual.answers):
            name = step.option("differs")
            if not normalise.same(theirs, ours, step_normalisers(step)):
                if name or case.differs:
                    self.seen_differences.update([name] if name else case.differs)
                else:
                    found.append((step.text, texts(theirs), texts(ours)))
            if step.expected is not None and self.program != "redis" and not matches(step.expected, texts(ours)):
                found.append((step.text, "(ours on purpose) " + step.expected, texts(ours)))
        order = [("sort", None)] if case.any_order else []
        for what, theirs, ours, rules in (("leftover", expected.leftover, actual.leftover, []),
                                          ("events", expected.events, actual.events, order),
                                          ("state", expected.state, actual.state, normalise.BY_COMMAND[b"PTTL"])):
            whole = [Reply("array", theirs)], [Reply("array", ours)]
            if not normalise.same(*whole, rules):
                if case.differs:
                    self.seen_differences.update(case.differs)
                else:
                    found.append((what, texts(whole[0]), texts(whole[1])))
        return found

    def report(self, case, protocol, found):
        if len(self.failures) == 41 and not self.verbose:
            print("… further failures are only named (-v shows them all)")
        if len(self.failures) > 40 and not self.verbose:
            print(f"FAIL {case.name} RESP{protocol}: {found[0][0][:100]}")
            return
        print(f"FAIL {case.name} RESP{protocol} {case.title}")
        lines = [step.text for step in case.steps]
        if len(lines) > 1:
            print("     case: " + " ⏎ ".join(lines)[:600])
        for what, theirs, ours in found:
            print(f"     {what[:200]}\n       redis {clip(theirs)}\n       ours  {clip(ours)}")


def patience(case):
    """How many seconds to wait for an answer and for an event. What is missing where a case shows a difference is no fault, and is not
    awaited for long; an answer that is laid down is awaited as any other."""
    if case is None or not case.differs:
        return case_run.STEP_SECONDS, EXPIRY_SECONDS
    laid_down = any(step.expected is not None for step in case.steps)
    return case_run.STEP_SECONDS if laid_down else DIFFERENT_SECONDS, DIFFERENT_SECONDS


def step_normalisers(step):
    rules = list(step.normalisers)
    if step.option("scanall") is None and step.option("ordered") is None and step.words and isinstance(step.words[0], bytes):
        rules += normalise.BY_COMMAND.get(step.words[0].upper(), [])
    return rules


def texts(replies):
    return " ".join(reply.text() for reply in replies)


def matches(expected, text):
    """Whether our answer is the one that was laid down: the whole text, or after ~ a regular expression."""
    return re.search(expected[1:], text) is not None if expected.startswith("~") else text.rstrip() == expected


def clip(text, limit=1500):
    return text if len(text) <= limit else text[:limit] + f"… ({len(text)})"


def load(only, backend="memory:"):
    cases = []
    for path in sorted(glob.glob(os.path.join(HERE, "cases", "*.txt"))):
        cases += caselang.read_file(path)
    wanted = [w for w in (only or "").split(",") if w]
    if backend == servers.FOLLOWER:
        for case in cases:
            case.differs = case.differs + case.follower_differs
            for step in case.steps if case.follower_differs else ():
                step.expected = None  # what is laid down holds where a command is evaluated
    if wanted:
        cases = [c for c in cases if any(c.name == w or c.file in (w, w + ".txt") for w in wanted)]
    return cases


def names_in(cases):
    """(differences that cases show on any server, those that only a follower shows)"""
    everywhere = {name for case in cases for name in case.differs}
    everywhere |= {step.option("differs") for case in cases for step in case.steps} - {None}
    return everywhere, {name for case in cases for name in case.follower_differs} - everywhere


def check_names(cases, listed):
    """Errors in the use of names: of differences, and of normalisers."""
    used = set.union(*names_in(cases))
    errors = [f"differences.md has no {name}" for name in sorted(used - set(listed))]
    errors += [f"no case uses the difference {name}" for name in listed if name not in used]
    known = set(normalise.FUNCTIONS) | normalise.OTHERS
    unknown = {name for case in cases for step in case.steps for name, _ in step.normalisers} - known
    return errors + [f"there is no normaliser !{name}" for name in sorted(unknown)]


def main():
    parser = servers.argument_parser(__doc__)
    parser.add_argument("--only", help="files or cases (file.txt:line), separated by commas")
    parser.add_argument("--proto", type=int, choices=(2, 3), help="only RESP2 or only RESP3")
    parser.add_argument("-v", "--verbose", action="store_true", help="show every failure in full")
    parser.add_argument("--slowest", action="store_true", help="name the cases that took longest")
    options = parser.parse_args()
    cases = load(options.only, options.backend)
    listed = differences.names()
    everything = load(None)
    errors = check_names(everything, listed)
    started = time.monotonic()
    comparison = Comparison(options.server, options.backend, verbose=options.verbose)
    comparison.run(cases, [options.proto] if options.proto else [2, 3])
    awaited = dict(zip(("memory:", servers.FOLLOWER), names_in(everything))).get(options.backend, ())
    if options.server != "redis" and not options.only and not options.proto:
        errors += [f"the difference {name} was not seen: take it off the list" for name in sorted(awaited)
                   if name not in comparison.seen_differences]
    for error in errors:
        print("FAIL " + error)
    if options.slowest:
        for name, seconds in comparison.slowest():
            print(f"{seconds:8.3f} s  {name}")
    failed = len(comparison.failures) + len(errors)
    print(f"compare {options.backend} {len(cases)} cases, {time.monotonic() - started:.1f} s")
    print(f"{comparison.passed} passed, {failed} failed")
    return 1 if failed or not comparison.passed else 0


if __name__ == "__main__":
    sys.exit(main())
