#!/usr/bin/env python3
"""Random subscriptions and messages from a seed, to redis-server and to ours: notices, counts and every subscriber's messages
must be the same, and nothing may come that was not awaited.

    compat/random_pubsub.py --server build/release/isthmus --seed 7 --steps 1500
"""

import contextlib
import random
import sys
import time

import normalise
import resp
import servers
from resp import Reply

CHANNELS = ["a", "b", "ab", "news.x", "", "\x00\xff"]
PATTERNS = ["*", "a*", "?", "[ab]", "news.*", "", "\x00*"]
SUBSCRIBERS = 3
CHECK_EVERY = 20
MESSAGE_SECONDS = resp.REPLY_SECONDS


class Generator:
    """Makes steps: (connection, words); connection None is the publisher."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.sent = 0

    def some(self, names, least):
        return [self.random.choice(names) for _ in range(self.random.randint(least, 3))]

    def next(self):
        kind = self.random.random()
        if kind < 0.5:
            self.sent += 1
            return None, [self.random.choice(["PUBLISH", "PUBLISH", "SPUBLISH"]), self.random.choice(CHANNELS), str(self.sent)]
        if kind < 0.6:
            return None, self.random.choice([["PUBSUB", "CHANNELS"], ["PUBSUB", "NUMPAT"], ["PUBSUB", "NUMSUB"] + CHANNELS,
                                             ["PUBSUB", "SHARDCHANNELS"], ["PUBSUB", "SHARDNUMSUB"] + CHANNELS,
                                             ["PUBSUB", "CHANNELS", self.random.choice(PATTERNS)]])
        conn = self.random.randrange(SUBSCRIBERS)
        if kind < 0.62:
            return conn, ["RESET"]
        letter = self.random.choice(["", "", "P", "S"])
        names = PATTERNS if letter == "P" else CHANNELS
        if self.random.random() < 0.55:
            return conn, [letter + "SUBSCRIBE"] + self.some(names, 1)
        return conn, [letter + "UNSUBSCRIBE"] + self.some(names, 0)


class Side:
    """One server with its publisher and subscribers. The first two subscribers speak RESP3 when `protocol` is 3."""

    def __init__(self, port, protocol):
        self.protocol = protocol
        self.publisher = resp.Client(port)
        self.subscribers = [resp.Client(port) for _ in range(SUBSCRIBERS)]
        for conn in range(SUBSCRIBERS):
            self.greet(conn)

    def greet(self, conn):
        if self.protocol == 3 and conn < 2:
            self.subscribers[conn].hello(3)

    def close(self):
        for client in self.subscribers + [self.publisher]:
            client.close()

    def run(self, conn, words):
        """The replies to one step, with what may come in any order put in order."""
        words = [word.encode("latin-1") for word in words]
        if conn is None:
            reply = self.publisher.command(*words)
            return [normalise.simplify(reply, [("sort", None)]) if words[1:2] in ([b"CHANNELS"], [b"SHARDCHANNELS"]) else reply]
        client = self.subscribers[conn]
        if words[0] == b"RESET":
            client.set_protocol(None)
            reply = client.command(*words)
            client.set_protocol(2)
            client.subscribed = {"": set(), "p": set(), "s": set()}
            self.greet(conn)
            return [reply]
        client.send(*words)
        replies = [client.read_reply()]
        letter = words[0][:1].lower().decode() if words[0][:1] in (b"P", b"S") and words[0] != b"SUBSCRIBE" else ""
        awaited = len(words) - 1 if len(words) > 1 else len(client.subscribed[letter]) + 1
        replies += [client.read_reply() for _ in range(awaited - 1)]
        if len(words) > 1:
            return replies
        names = sorted((r.value[1] for r in replies), key=Reply.text)  # all are left, in any order
        return [Reply("array", names)] + [Reply("array", [r.value[0], r.value[2]]) for r in replies]

    def messages(self, wanted=None):
        """Each subscriber's messages since the last call, in a fixed order where patterns decide it by chance. Those of the first
        side end where its answer to PING comes; of the other so many are awaited."""
        result = []
        for conn, client in enumerate(self.subscribers):
            with contextlib.suppress(resp.Timeout):  # what is missing shows in the comparison
                while wanted is not None and len(client.pushes) < len(wanted[conn]):
                    client.pushes.append(client.read_push_from_wire(MESSAGE_SECONDS))
            client.send("PING")
            client.read_reply()
            texts = [(int(push.value[-1].value), push.text()) for push in client.pushes]
            client.pushes.clear()
            numbers = [number for number, _ in texts]
            result.append([text for _, text in sorted(texts)] + ([] if numbers == sorted(numbers) else ["out of order"]))
        return result


def first_difference(steps, reference, ours, protocol):
    """Runs the steps on both. None, or a text that says what differs."""
    sides = Side(reference.port, protocol), Side(ours.port, protocol)
    try:
        for number, (conn, words) in enumerate(steps):
            theirs, mine = (side.run(conn, words) for side in sides)
            if theirs != mine:
                return f"step {number} {conn} {words}:\n  redis {theirs}\n  ours  {mine}"
            if number % CHECK_EVERY == 0 or number == len(steps) - 1:
                theirs = sides[0].messages()
                mine = sides[1].messages(theirs)
                if theirs != mine:
                    return f"messages of the last {CHECK_EVERY} steps:\n" + describe(steps[:number + 1], theirs, mine)
    except (resp.Timeout, resp.Closed, resp.ProtocolError) as error:
        return f"step {number} {conn} {words}: {type(error).__name__}: {error}"
    finally:
        for side in sides:
            side.close()
    return None


def describe(steps, theirs, mine):
    """What only one side has, and the steps since the last check."""
    lines = [f"  subscriber {conn}: " + "; ".join(
        f"only {side} has {[m for m in a if m not in b]}" for side, a, b in (("redis", x, y), ("ours", y, x)) if a != b)
             for conn, (x, y) in enumerate(zip(theirs, mine)) if x != y]
    return "\n".join(lines + [f"  {'publisher' if conn is None else conn}> {words}" for conn, words in steps[-CHECK_EVERY:]])


def main():
    parser = servers.argument_parser(__doc__)
    parser.add_argument("--seed", type=int, help="the first seed; without it one from the clock")
    parser.add_argument("--seeds", type=int, default=6, help="how many seeds, one after the other")
    parser.add_argument("--steps", type=int, default=1500, help="steps for each seed")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else int(time.time()) % 1000000
    passed, failed, started = 0, 0, time.monotonic()
    with servers.Server("redis") as reference, servers.Server(options.server, options.backend) as ours:
        for seed in range(first, first + options.seeds):
            generator = Generator(seed)
            steps = [generator.next() for _ in range(options.steps)]
            found = first_difference(steps, reference, ours, 2 + seed % 2)
            passed, failed = passed + (found is None), failed + (found is not None)
            if found:
                print(f"FAIL seed {seed} RESP{2 + seed % 2}, {options.steps} steps: {found[:3000]}")
        for line in ours.complaints():
            print(f"FAIL the log says: {line}")
            failed += 1
    print(f"seeds {first} to {first + options.seeds - 1}, {options.steps} steps each, {time.monotonic() - started:.1f} s")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
