#!/usr/bin/env python3
"""Does what ion does with its Redis URL, with several nodes at once.

ion (go-redis v7, RESP2) puts a lock round every operation, reads too: `set lock-<key> 1 ex 3 nx`, tried again every 100 ms, and
`del lock-<key>` afterwards. It watches a key by `psubscribe __key*__:<key>` on a connection of its own, pings there after
silence, and acts on `del` and `expired`.

Checked: locks exclude each other and no update is lost; a lock whose holder has gone ends by itself; each del and each expiry
reaches every watcher exactly once; replies have the shapes that go-redis reads.
"""

import sys
import threading
import time

import resp
import servers
from checks import Checks

RETRY_SECONDS = 0.1  # ion's own pause between attempts to lock
LOCK_SECONDS = 3
LOCK_LATE_SECONDS = 12  # for a machine that stands still for seconds
NODES = 4
ROUNDS = 6
DAY = 24 * 3600


class Node:
    """One ion process: a connection for commands, and one for each key it watches."""

    def __init__(self, port):
        self.port = port
        self.client = resp.Client(port)

    def connect(self, checks):
        checks.equal("ping", self.client.command("ping").text(), "+PONG")
        reply = self.client.command("config", "set", "notify-keyspace-events", "AKE")
        checks.equal("CONFIG SET notify-keyspace-events AKE", reply.text(), "+OK")

    def lock(self, key, deadline_seconds=20):
        """Gives how many attempts it took. An error counts as "not acquired", as in ion."""
        deadline = time.monotonic() + deadline_seconds
        for attempt in range(1, 10000):
            if self.client.command("set", "lock-" + key, 1, "ex", LOCK_SECONDS, "nx").text() == "+OK":
                return attempt
            if time.monotonic() > deadline:
                raise resp.Timeout(f"the lock of {key} was not acquired")
            time.sleep(RETRY_SECONDS)
        return 0

    def unlock(self, key):
        return self.client.command("del", "lock-" + key)

    def locked(self, key, *commands):
        """The replies to commands done under the lock of the key."""
        self.lock(key)
        replies = [self.client.command(*command) for command in commands]
        self.unlock(key)
        return replies

    def close(self):
        self.client.close()


class Watcher:
    """ion's Watch of one key."""

    def __init__(self, port, key, checks):
        self.key = key
        self.client = resp.Client(port)
        self.client.send("psubscribe", f"__key*__:{key}")
        self.pattern = f"__key*__:{key}".encode()
        notice = self.client.read_reply().plain()
        checks.equal(f"psubscribe {key}", notice, [b"psubscribe", self.pattern, 1])

    def ping(self):
        return self.client.command("ping").plain()

    def events_until(self, last):
        """What happened to the key, up to and with an event of that name; raises Timeout when it does not come."""
        names = []
        while not names or names[-1] != last:
            kind, pattern, channel, name = self.client.read_push().plain()
            if (kind, pattern, channel) != (b"pmessage", self.pattern, f"__keyspace@0__:{self.key}".encode()):
                raise resp.ProtocolError(f"not a message of this pattern: {kind} {pattern} {channel}")
            names.append(name)
        return names

    def close(self):
        self.client.close()


def run_threads(functions, checks):
    """Runs all at once; an exception in one is a failed check."""

    def guarded(function):
        try:
            function()
        except Exception as error:  # noqa: any fault of a node is a finding
            checks.check(f"{function.__qualname__}", False, f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=guarded, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def check_shapes(port, checks):
    """Each of ion's functions once, with what go-redis must be able to read."""
    node, key, name = Node(port), "/ion/room/shapes", b"\x00binary\xff"
    node.connect(checks)
    for command, expected in [
        (("set", key, name), "+OK"), (("get", key), '"\\x00binary\\xff"'), (("set", key, "v", "ex", 10), "+OK"),
        (("set", key, "v", "px", 10000), "+OK"), (("del", key), ":1"), (("get", key), "nil"), (("hgetall", key), "[]"),
        (("hset", key, "f", name), ":1"), (("hmset", key, "g", 1, "h", 2), "+OK"), (("hget", key, "f"), '"\\x00binary\\xff"'),
        (("hmget", key, "g", "none"), '["1", nil]'), (("hdel", key, "h"), ":1"), (("expire", key, DAY), ":1"),
        (("hset", key, "f", "v"), ":0"), (("hgetall", key), '["f", "v", "g", "1"]'), (("expire", "none", 5), ":0"),
        (("keys", "/ion/*/sha*s**"), f'["{key}"]'), (("keys", "nothing**"), "[]"), (("hget", key, "none"), "nil"),
    ]:
        (reply,) = node.locked(key, command)
        checks.equal(" ".join(map(str, command)), reply.text(), expected)
    checks.equal("the lock is gone", node.client.command("exists", "lock-" + key).text(), ":0")
    left = node.client.command("ttl", key).value
    checks.check("the hash keeps its 24 hours", DAY - 60 <= left <= DAY, left)
    node.close()


def check_exclusion(port, checks):
    """Several nodes read, add one, and write, each under the lock, without any other protection."""
    key, inside, overlaps = "/ion/room/exclusive", [], []

    def work():
        node = Node(port)
        for _ in range(ROUNDS):
            node.lock(key)
            inside.append(1)
            if len(inside) > 1:
                overlaps.append(1)
            value = node.client.command("hget", key, "count").value
            node.client.command("hset", key, "count", int(value or 0) + 1)
            inside.pop()
            node.unlock(key)
        node.close()

    run_threads([work] * NODES, checks)
    last = Node(port)
    (reply,) = last.locked(key, ("hget", key, "count"))
    last.close()
    checks.equal("updates under the lock", reply.plain(), str(NODES * ROUNDS).encode())
    checks.equal("nodes inside the lock together", len(overlaps), 0)


def check_abandoned_lock(port, checks):
    """A node that takes the lock and dies: the others get in when the lock's three seconds are over."""
    key, dead, waiting = "/ion/room/abandoned", Node(port), Node(port)
    started = time.monotonic()
    dead.lock(key)
    dead.close()
    waiting.lock(key)
    waited = time.monotonic() - started
    checks.check("an abandoned lock ends by itself after its time",
                 LOCK_SECONDS - 0.1 <= waited <= LOCK_SECONDS + LOCK_LATE_SECONDS, f"{waited:.2f} s")
    waiting.unlock(key)
    waiting.close()


def check_watch(port, checks):
    """Every node watches every key; keys go by del, by hdel of the last field, and by expiry."""
    keys = [f"/ion/room/watched/u{i}" for i in range(3)]
    other = Watcher(port, "/ion/room/watched/other", checks)
    watchers = [Watcher(port, key, checks) for key in keys for _ in range(NODES)]
    node = Node(port)
    checks.equal("ping of a watcher", watchers[0].ping(), [b"pong", b""])
    for key in keys:
        node.locked(key, ("hset", key, "uid", key), ("expire", key, DAY), ("hmset", key, "mid", "m"))
    node.locked(keys[0], ("del", keys[0]))
    node.locked(keys[1], ("hdel", keys[1], "uid"), ("hdel", keys[1], "mid"))
    node.locked(keys[2], ("expire", keys[2], 1))
    made = [b"hset", b"expire", b"hset"]
    expected = {keys[0]: made + [b"del", b"fence"], keys[1]: made + [b"hdel", b"hdel", b"del", b"fence"],
                keys[2]: made + [b"expire", b"expired", b"fence"]}
    first_gone = next(w for w in watchers if w.key == keys[2]).events_until(b"expired")
    checks.equal("an expiry reaches its watcher", first_gone[-1], b"expired")
    for key in keys:
        # A message that comes after all events of the key on every connection that watches it: repeats would come before.
        count = node.client.command("publish", f"__keyspace@0__:{key}", "fence").value
        checks.equal(f"watchers of {key}", count, NODES)
    seen_first = {id(next(w for w in watchers if w.key == keys[2])): first_gone}
    for watcher in watchers:
        names = seen_first.get(id(watcher), []) + watcher.events_until(b"fence")
        checks.equal(f"events of {watcher.key}", names, expected[watcher.key])
    node.client.command("publish", "__keyspace@0__:/ion/room/watched/other", "fence")
    checks.equal("a watcher hears its own key only", other.events_until(b"fence"), [b"fence"])
    checks.equal("ping of a watcher after events", watchers[0].ping(), [b"pong", b""])
    for watcher in watchers + [other, node]:
        watcher.close()


def check_many_rooms(port, checks):
    """Nodes make and delete keys of their own at the same time; a watcher of each sees each del once."""

    def room(number):
        key = f"/ion/room/many/{number}"
        watcher, node = Watcher(port, key, checks), Node(port)
        for _ in range(20):
            node.locked(key, ("hset", key, "a", 1), ("expire", key, DAY), ("del", key))
        node.client.command("publish", f"__keyspace@0__:{key}", "fence")
        names = watcher.events_until(b"fence")
        checks.equal(f"events of room {number}", names, [b"hset", b"expire", b"del"] * 20 + [b"fence"])
        watcher.close()
        node.close()

    run_threads([lambda n=n: room(n) for n in range(NODES)], checks)
    node = Node(port)
    checks.equal("no key is left", node.client.command("keys", "/ion/room/many/**").plain(), [])
    node.close()


def main():
    options = servers.argument_parser(__doc__).parse_args()
    checks = Checks()
    with servers.Server(options.server, options.backend) as server:
        parts = [check_shapes, check_exclusion, check_abandoned_lock, check_watch, check_many_rooms]
        # The first sets the events; the others need nothing from each other.
        run_threads([lambda: parts[0](server.port, checks)], checks)
        run_threads([lambda p=p: p(server.port, checks) for p in parts[1:]], checks)
        checks.check("the server lives", server.alive(), server.log_tail())
        checks.check("the log has no fault", not server.complaints(), server.complaints())
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
