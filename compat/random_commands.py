#!/usr/bin/env python3
"""Random commands from a seed, on two connections, to redis-server and to ours: every reply is compared, and now and then
and at the end the whole state and the keyspace events in their order.

    compat/random_commands.py --server build/release/isthmus --seed 7 --commands 20000

The commands use few keys and fields, so that they meet each other. Time plays no part: deadlines are long past or far away. When
something differs, the seed and a sequence that was shortened as far as it goes are printed.
"""

import itertools
import random
import sys
import time

import normalise
import resp
import servers
from resp import Reply

KEYS = ["a", "b", "c", "h", "g", "n", "", "k\x00\xff"]
FIELDS = ["f", "g", "x", "", "1"]
MEMBERS = ["f", "g", "1", "2", "-7", "100000", "", "m\x00\xff"]
# What redis-server 7.0.15 dumps of a string, a number, a compressed string, hashes, and sets; an intact payload of a list that is
# cut off; nothing. A list that is whole only redis-server takes.
PAYLOADS = [bytes.fromhex(payload).decode("latin-1") for payload in (
    "000568656c6c6f0a006372df766534200a", "00c1e8030a0089d1478ebac4b764", "00c3094064016161e057000161610a00e8a3b507b06df271",
    "10c34044407d1f7d0000000e00816602817602816e020c01836e656704dffd02817702c3e802830962696704f400f2052a0120280e09816d02f2701101048"
    "16c02e04078e036000142ff0a00e4a220beeb8bf3e4",
    "04020167c0010166c3094041017676e034000176760a0032e59295ef57a000", "0b0e0200000003000000fdff010002000a00d1b78ed9bc07c27f",
    "02020161c0010a00ce387e029ce13e72", "")]
DUMPED = "compat:dumped"
VALUES = ["", "0", "1", "-1", "10", "9223372036854775807", "-9223372036854775808", "1.5", "abc", "3.0e3", "x" * 70, " 5", "007",
          "\x00\xff\r\n", "value"]
INTEGERS = ["0", "1", "-1", "2", "5", "100", "-100", "9223372036854775807", "abc", "", "1.0"]
SECONDS = ["1000", "5000", "100000", "-1", "0", "abc", "9223372036854775807"]
MILLISECONDS = ["1000000", "5000000", "-1", "0", "abc", "99999999999"]
UNIX_SECONDS = ["99999999999", "88888888888", "1", "0", "-5", "abc"]
UNIX_MILLISECONDS = ["99999999999999", "88888888888888", "1", "0", "abc"]
PATTERNS = ["*", "a*", "?", "[a-c]", "h", "*\xff", ""]
DATABASES = ["0", "1", "2", "15", "16", "-1", "x"]
EXPIRE_FLAGS = ["NX", "XX", "GT", "LT", "nx", "BAD"]
CHECK_EVERY = 250
STATE_TOLERANCE_MS = "20000"  # of lifetimes, which are 1,000 s and more: the state is read key by key, on a busy machine
SYNC_CHANNEL = "compat-sync"
BATCH = 25


class Generator:
    """Makes commands: [(connection, [words])]."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.makers = [(weight, maker) for weight, maker in self._makers() for _ in range(weight)]

    def pick(self, *choices):
        return self.random.choice(choices[0] if len(choices) == 1 else choices)

    def maybe(self, text, chance=0.3):
        return [text] if self.random.random() < chance else []

    def key(self):
        return self.pick(KEYS)

    def some(self, choices, most=4):
        return [self.pick(choices) for _ in range(self.random.randint(1, most))]

    def pairs(self, names):
        return [word for _ in range(self.random.randint(1, 3)) for word in (self.pick(names), self.pick(VALUES))]

    def deadline(self):
        kind = self.pick("EX", "PX", "EXAT", "PXAT")
        return [kind, self.pick({"EX": SECONDS, "PX": MILLISECONDS, "EXAT": UNIX_SECONDS, "PXAT": UNIX_MILLISECONDS}[kind])]

    def time_to_live(self, name, choices, flags):
        """With GT or LT a time that no other key has: of two equal ones the clock says whether the second ends later."""
        chosen = self.pick(choices)
        if {"GT", "LT"} & set(flags) and chosen.isdigit() and 0 < int(chosen) < 1 << 40:
            chosen = str(int(chosen) + self.random.randrange(int(chosen)))
        return [name, self.key(), chosen] + flags

    def set_options(self):
        """Without deadlines in the past: when redis-server takes such a key away is chance."""
        deadline = self.deadline()
        if deadline[0] in ("EXAT", "PXAT") and deadline[1] == "1":
            deadline[1] = "0"
        words = []
        for option in self.random.sample([["NX"], ["XX"], ["GET"], ["KEEPTTL"], deadline], self.random.randint(0, 3)):
            words += option
        return words

    def scan_options(self):
        words = []
        for option in self.random.sample([["MATCH", self.pick(PATTERNS)], ["COUNT", "10000"], ["TYPE", self.pick("hash", "set", "string")]],
                                         self.random.randint(0, 3)):
            words += option
        return words

    def _makers(self):
        pick, key, some = self.pick, self.key, self.some
        yield 8, lambda: ["SET", key(), pick(VALUES)] + self.set_options()
        yield 2, lambda: [pick("SETEX", "PSETEX"), key(), pick(MILLISECONDS), pick(VALUES)]
        yield 4, lambda: ["GETEX", key()] + pick([[], ["PERSIST"], self.deadline(), ["BAD"]])
        yield 6, lambda: [pick("GET", "STRLEN", "GETDEL", "INCR", "DECR"), key()]
        yield 4, lambda: [pick("SETNX", "GETSET", "APPEND"), key(), pick(VALUES)]
        yield 4, lambda: [pick("INCRBY", "DECRBY", "INCRBYFLOAT"), key(), pick(VALUES)]
        yield 2, lambda: [pick("GETRANGE", "SUBSTR"), key(), pick(INTEGERS), pick(INTEGERS)]
        yield 2, lambda: ["SETRANGE", key(), pick("0", "1", "5", "-1", "abc", "70"), pick(VALUES)]
        yield 3, lambda: [pick("MSET", "MSETNX")] + self.pairs(KEYS)
        yield 3, lambda: [pick("MGET", "DEL", "UNLINK", "EXISTS", "TOUCH")] + some(KEYS)
        yield 8, lambda: [pick("HSET", "HMSET"), key()] + self.pairs(FIELDS)
        yield 2, lambda: ["HSETNX", key(), pick(FIELDS), pick(VALUES)]
        yield 4, lambda: [pick("HGET", "HEXISTS", "HSTRLEN"), key(), pick(FIELDS)]
        yield 4, lambda: [pick("HMGET", "HDEL"), key()] + some(FIELDS)
        yield 4, lambda: [pick("HGETALL", "HLEN", "HKEYS", "HVALS"), key()]
        yield 4, lambda: [pick("HINCRBY", "HINCRBYFLOAT"), key(), pick(FIELDS), pick(VALUES)]
        yield 1, lambda: ["HSCAN", key(), "0"] + self.scan_options()
        yield 1, lambda: ["HRANDFIELD", key()] + pick([[], ["0"], ["1000"], ["1000", "WITHVALUES"], ["abc"]])
        yield 8, lambda: ["SADD", key()] + some(MEMBERS)
        yield 4, lambda: ["SREM", key()] + some(MEMBERS)
        yield 3, lambda: [pick("SISMEMBER", "SMISMEMBER"), key()] + some(MEMBERS, 2)
        yield 4, lambda: [pick("SCARD", "SMEMBERS"), key()]
        yield 4, lambda: [pick("SINTER", "SUNION", "SDIFF")] + some(KEYS, 3)
        yield 3, lambda: [pick("SINTERSTORE", "SUNIONSTORE", "SDIFFSTORE"), key()] + some(KEYS, 3)
        yield 2, lambda: ["SINTERCARD", pick("1", "2", "2", "0", "9", "abc")] + some(KEYS, 3) + pick([[], ["LIMIT", pick(INTEGERS)]])
        yield 3, lambda: ["SMOVE", key(), key(), pick(MEMBERS)]
        yield 2, lambda: ["SPOP", key()] + pick([["0"], ["1000"], ["abc"], ["-1"], ["1", "2"]])
        yield 2, lambda: ["SRANDMEMBER", key()] + pick([[], ["0"], ["1000"], ["abc"], ["-9223372036854775808"]])
        yield 1, lambda: ["SSCAN", key(), "0"] + self.scan_options()
        yield 2, lambda: ["DUMP", key()]
        yield 3, lambda: ["RESTORE", key(), pick("0", "1000000", "-1", "abc"), pick(PAYLOADS)] + pick(
            [[], ["REPLACE"], ["REPLACE", "ABSTTL"], ["REPLACE", "IDLETIME", pick(INTEGERS)], ["FREQ", "5", "REPLACE"], ["BAD"]])
        yield 6, lambda: [pick("TYPE", "TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME", "PERSIST"), key()]
        yield 3, lambda: self.time_to_live("EXPIRE", SECONDS, self.maybe(pick(EXPIRE_FLAGS)) + self.maybe(pick(EXPIRE_FLAGS), 0.1))
        yield 2, lambda: self.time_to_live("PEXPIRE", MILLISECONDS, self.maybe(pick(EXPIRE_FLAGS)))
        yield 2, lambda: ["EXPIREAT", key(), pick(UNIX_SECONDS)] + self.maybe(pick(EXPIRE_FLAGS))
        yield 2, lambda: ["PEXPIREAT", key(), pick(UNIX_MILLISECONDS)] + self.maybe(pick(EXPIRE_FLAGS))
        yield 3, lambda: [pick("RENAME", "RENAMENX"), key(), key()]
        yield 3, lambda: ["COPY", key(), key()] + pick([[], ["REPLACE"], ["DB", pick(DATABASES)],
                                                       ["DB", pick(DATABASES), "REPLACE"], ["BAD"]])
        yield 2, lambda: ["MOVE", key(), pick(DATABASES)]
        yield 2, lambda: ["SELECT", pick(DATABASES)]
        yield 1, lambda: ["SWAPDB", pick(DATABASES), pick(DATABASES)]
        yield 1, lambda: pick(["FLUSHDB"], ["FLUSHALL"], ["FLUSHDB", "ASYNC"], ["FLUSHALL", "BAD"])
        yield 2, lambda: ["KEYS", pick(PATTERNS)]
        yield 1, lambda: ["SCAN", "0"] + self.scan_options() + ["COUNT", "10000"]
        yield 2, lambda: ["DBSIZE"]
        yield 2, lambda: ["OBJECT", pick("ENCODING", "FREQ", "BAD"), key()]
        yield 4, lambda: pick(["MULTI"], ["EXEC"], ["EXEC"], ["DISCARD"])
        yield 4, lambda: pick(["WATCH"] + some(KEYS), ["WATCH", key()], ["UNWATCH"])
        yield 1, lambda: [pick("PUBLISH", "SPUBLISH"), key(), pick(VALUES)]
        yield 1, lambda: ["COMMAND", "GETKEYS", pick("GET", "MSET", "HSET", "PING", "DEL", "SINTER", "SUNIONSTORE", "SMOVE")] + some(KEYS)
        yield 1, lambda: self.wrong()

    def wrong(self):
        """A command with too few or too many words, or one that does not exist."""
        name = self.pick("GET", "SET", "HSET", "DEL", "EXPIRE", "COPY", "MULTI", "NOTHING", "HGETALL", "INCR")
        return [name] + [self.pick(VALUES[:-2]) for _ in range(self.random.randint(0, 4))]

    def next(self):
        words = self.pick(self.makers)[1]()
        return self.random.randint(0, 1), [word.encode("latin-1") for word in words]


# How a value was built shows only on the server that evaluated its commands: the difference built-values.
ENCODINGS = ("sub", "^(int|embstr|raw|listpack|hashtable|intset)$,any")


class Side:
    """One server with its two connections."""

    def __init__(self, port, protocol):
        self.clients = [resp.Client(port), resp.Client(port)]
        for client in self.clients:
            client.hello(protocol)
        self.admin, self.listener = resp.Client(port), resp.Client(port)
        self.admin.pipeline([("FLUSHALL",), ("CONFIG", "SET", "notify-keyspace-events", "AKE")])
        self.listener.send("PSUBSCRIBE", "__key*__:*")
        self.listener.read_reply()
        self.listener.send("SUBSCRIBE", SYNC_CHANNEL)
        self.listener.read_reply()

    def close(self):
        for client in self.clients + [self.admin, self.listener]:
            client.close()

    def events(self):
        """The keyspace events since the last call, as texts."""
        self.admin.command("PUBLISH", SYNC_CHANNEL, "")
        found = []
        while True:
            values = self.listener.read_push().plain()
            if values[0] == b"message":
                return found
            found.append(b" ".join(values[2:]))

    def run(self, commands):
        """Replies in order. What two connections send is not in flight at the same time."""
        replies, start = [], 0
        while start < len(commands):
            end = start
            while end < len(commands) and commands[end][0] == commands[start][0]:
                end += 1
            replies += self.clients[commands[start][0]].pipeline([words for _, words in commands[start:end]])
            start = end
        return replies

    def state(self):
        lines = []
        for db in range(16):
            self.admin.command("SELECT", db)
            keys = sorted(item.value for item in self.admin.command("SCAN", 0, "COUNT", 1000000).value[1].value)
            for key in keys:
                kind, left, encoding, text, fields, members = self.admin.pipeline(
                    [("TYPE", key), ("PTTL", key), ("OBJECT", "ENCODING", key), ("GET", key), ("HGETALL", key), ("SMEMBERS", key)])
                value = normalise.value_of(kind, text, fields, members)
                lines.append(Reply("array", [Reply("bulk", b"%d" % db), Reply("bulk", key), kind, left, encoding, value]))
        return lines


    def restore(self, other):
        """Restores what the other server dumps of its keys. A text that says what is not the same afterwards, or empty."""
        for db in range(16):
            for side in (self, other):
                side.admin.command("SELECT", db)
            for key in (item.value for item in other.admin.command("SCAN", 0, "COUNT", 1000000).value[1].value):
                payload = other.admin.command("DUMP", key)
                answer = self.admin.command("RESTORE", DUMPED, 0, payload.value, "REPLACE")
                theirs, mine = (side.value_at(name) for side, name in ((other, key), (self, DUMPED)))
                self.admin.command("DEL", DUMPED)
                if answer.value != b"OK" or theirs.text() != mine.text():
                    return f"dump of {key} in {db}: {payload.text()[:300]}: {answer.text()}, {theirs.text()[:200]}, {mine.text()[:200]}"
        return ""

    def value_at(self, key):
        return normalise.value_of(*self.admin.pipeline([("TYPE", key), ("GET", key), ("HGETALL", key), ("SMEMBERS", key)]))


class Queues:
    """Knows for each connection which commands are queued, so that an EXEC is compared with what its commands allow to vary."""

    def __init__(self):
        self.queues = {}

    def after(self, conn, words, reply):
        """The commands whose replies are the parts of this reply, if it is EXEC's; else None."""
        name = words[0].upper()
        if name == b"MULTI" and not reply.is_error():
            self.queues[conn] = []
        elif name in (b"EXEC", b"DISCARD") and not reply.is_error():
            return self.queues.pop(conn, None) if name == b"EXEC" else None
        elif name == b"EXEC" and reply.value.startswith(b"EXECABORT"):
            self.queues.pop(conn, None)
        elif reply.value == b"QUEUED" and conn in self.queues:
            self.queues[conn].append(words)
        return None


def rules_of(words, follower):
    name = words[0].upper() if words else b""
    if follower and [word.upper() for word in words[:2]] == [b"OBJECT", b"ENCODING"]:
        return [ENCODINGS]
    if name in (b"SCAN", b"HSCAN", b"SSCAN"):
        return [("deepsort", None)]
    if name == b"HRANDFIELD" and len(words) == 2:
        return [("types", None)]
    if name in (b"HRANDFIELD", b"HGETALL"):
        return [("pairs" if name == b"HGETALL" or len(words) == 4 else "sort", None)]
    if name == b"DUMP" or name == b"SRANDMEMBER" and len(words) == 2:
        return [("any", None)]
    if name in (b"HKEYS", b"HVALS", b"SPOP", b"SRANDMEMBER"):
        return [("sort", None)]
    return normalise.BY_COMMAND.get(name, [])


def same_reply(words, queued, theirs, ours, follower):
    if queued is None or theirs.kind != "array" or ours.kind != "array" or len(theirs.value) != len(ours.value):
        return normalise.same([theirs], [ours], rules_of(words, follower))
    return all(normalise.same([a], [b], rules_of(w, follower)) for w, a, b in zip(queued, theirs.value, ours.value))


def first_difference(commands, reference, ours, protocol):
    """Runs the commands on both. None, or (index, text of what differs)."""
    sides = Side(reference.port, protocol), Side(ours.port, protocol)
    queues, follower = Queues(), ours.writer is not None
    try:
        for start in range(0, len(commands), BATCH):
            batch = commands[start:start + BATCH]
            answers = [side.run(batch) for side in sides]
            for i, ((conn, words), theirs, mine) in enumerate(zip(batch, *answers)):
                if not same_reply(words, queues.after(conn, words, theirs), theirs, mine, follower):
                    return start + i, f"redis {theirs.text()[:600]}\n  ours  {mine.text()[:600]}"
            if start % CHECK_EVERY == 0 or start + BATCH >= len(commands):
                found = state_difference(*sides, [ENCODINGS] if follower else []) or event_difference(*sides)
                if not found and start + BATCH >= len(commands):
                    found = sides[0].restore(sides[1]) or sides[1].restore(sides[0])
                if found:
                    return start + len(batch) - 1, found
    except (resp.Timeout, resp.Closed, resp.ProtocolError) as error:
        return len(commands) - 1, f"{type(error).__name__}: {error}"
    finally:
        for side in sides:
            side.close()
    return None


def state_difference(reference, ours, rules):
    theirs, mine = ([normalise.simplify(line, rules) for line in side.state()] for side in (reference, ours))
    if normalise.same(theirs, mine, [("near", STATE_TOLERANCE_MS)]):
        return None
    lines = [f"state: redis {a.text()[:300]}" for a in theirs if a not in mine]
    return "\n  ".join(lines[:5] + [f"state: ours  {b.text()[:300]}" for b in mine if b not in theirs][:5])


def event_difference(reference, ours):
    theirs, mine = reference.events(), ours.events()
    for number, (a, b) in enumerate(itertools.zip_longest(theirs, mine)):
        if a != b:
            return f"event {number}: redis {theirs[number:number + 4]}, ours {mine[number:number + 4]}"
    return None


def shorten(commands, reference, ours, protocol, seconds=20):
    """The shortest sequence found that still differs: ends after the difference, then leaves out ever smaller parts."""
    deadline = time.monotonic() + seconds
    found = first_difference(commands, reference, ours, protocol)
    if found is None:
        return commands, None
    commands = commands[:found[0] + 1]
    size = max(len(commands) // 2, 1)
    while size >= 1 and time.monotonic() < deadline:
        start = 0
        while start < len(commands) and time.monotonic() < deadline:
            attempt = commands[:start] + commands[start + size:]
            again = first_difference(attempt, reference, ours, protocol) if attempt else None
            if again:
                commands, found = attempt[:again[0] + 1], again
            else:
                start += size
        size //= 2
    return commands, found[1]


def run_seed(seed, count, reference, ours, protocol):
    """Whether a sequence gave the same on both; prints what did not."""
    generator = Generator(seed)
    commands = [generator.next() for _ in range(count)]
    found = first_difference(commands, reference, ours, protocol)
    if found is None:
        return True
    short, what = shorten(commands[:found[0] + 1], reference, ours, protocol)
    if what is None:
        print(f"FAIL seed {seed} RESP{protocol}, once, and not again when repeated: command {found[0]}: "
              f"{commands[found[0]]}\n  {found[1]}")
        return False
    print(f"FAIL seed {seed} RESP{protocol}, {count} commands, shortened to {len(short)}:")
    for conn, words in short[-60:]:
        print(f"  {conn + 1}> " + " ".join('"' + resp.printable(word) + '"' for word in words))
    print("  " + what)
    return False


def main():
    parser = servers.argument_parser(__doc__)
    parser.add_argument("--seed", type=int, help="the first seed; without it one from the clock")
    parser.add_argument("--seeds", type=int, default=8, help="how many seeds, one after the other")
    parser.add_argument("--commands", type=int, default=4000, help="commands for each seed")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else int(time.time()) % 1000000
    passed, failed, started = 0, 0, time.monotonic()
    with servers.Server("redis") as reference, servers.Server(options.server, options.backend) as ours:
        for seed in range(first, first + options.seeds):
            if not ours.alive():
                print(f"FAIL the server has ended:\n{ours.log_tail()}")
                failed += 1
                break
            good = run_seed(seed, options.commands, reference, ours, 2 + seed % 2)
            passed, failed = passed + good, failed + (not good)
        for line in ours.complaints():
            print(f"FAIL the log says: {line}")
            failed += 1
    print(f"seeds {first} to {first + options.seeds - 1}, {options.commands} commands each, "
          f"{time.monotonic() - started:.1f} s")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
