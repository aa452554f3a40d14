#!/usr/bin/env python3
"""Copies a redis-server into ours by tools/import_redis.py, and compares the two afterwards.

    compat/import_redis.py --server build/release/isthmus [--backend memory:]
"""

import os
import subprocess
import sys

import resp
import servers
from checks import Checks

TOOL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools", "import_redis.py")
SECONDS = 60
MIGRATE_MS = 30_000
DEADLINE_TOLERANCE_MS = 30_000  # on a machine that is busy; without load it is a few
STRINGS = 600


def fill(port):
    """Strings, hashes, sets and a list in two databases; some of them with a time to live."""
    client = resp.Client(port)
    commands = [("SET", f"s:{i}", "v" * (i % 70)) + (("PX", 10_000_000 + i) if i % 3 else ()) for i in range(STRINGS)]
    commands += [("HSET", f"h:{i}", "f", i, b"bin\x00\xff", "x" * i) for i in range(200)]
    commands += [("SADD", f"t:{i}", *(range(i) if i % 2 else ("a", "", i)), i) for i in range(100)]
    commands += [("SADD", "t:large", *range(3000)), ("EXPIRE", "t:9", 5000)]
    commands += [("EXPIRE", "h:7", 5000), ("RPUSH", "list", "a"), ("SELECT", 3), ("SET", b"\xff\r\n", b"\x00\xfe"), ("HSET", "h", "f", "v")]
    client.pipeline(commands)
    client.close()


def state(port):
    """{(db, key): (value, deadline in ms)} of what both servers can have."""
    client, found = resp.Client(port), {}
    for db in (0, 3):
        client.command("SELECT", db)
        keys = sorted(item.value for item in client.command("SCAN", 0, "COUNT", 1000000).value[1].value)
        replies = client.pipeline([(name, key) for key in keys for name in ("TYPE", "PEXPIRETIME", "GET", "HGETALL", "SMEMBERS")])
        for i, key in enumerate(keys):
            kind, left, text, fields, members = (reply.plain() for reply in replies[5 * i:5 * i + 5])
            if kind in (b"string", "string"):
                found[db, key] = (text, left)
            elif kind in (b"hash", "hash"):
                found[db, key] = (sorted(zip(fields[::2], fields[1::2])), left)
            elif kind in (b"set", "set"):
                found[db, key] = (sorted(members), left)
    client.close()
    return found


def run(source, target, *options):
    done = subprocess.run([sys.executable, TOOL, f"redis://127.0.0.1:{source}", "--into", f"redis://127.0.0.1:{target}", *options],
                          capture_output=True, timeout=SECONDS, text=True)
    return done.returncode, done.stdout, done.stderr


def compare(checks, name, source, target):
    theirs, ours = state(source), state(target)
    checks.equal(f"{name}: the keys", sorted(ours), sorted(theirs))
    same = sum(ours[key][0] == theirs[key][0] for key in theirs if key in ours)
    checks.equal(f"{name}: the values", same, len(theirs))
    near = sum((ours[key][1] < 0) == (theirs[key][1] < 0) and abs(ours[key][1] - theirs[key][1]) <= DEADLINE_TOLERANCE_MS
               for key in theirs if key in ours)
    checks.equal(f"{name}: deadlines", near, len(theirs))


MOVED = ("s:1", "h:1", "h:7", "t:8", "t:9", "t:large")


def values(client, keys):
    """What the keys hold, by the type of each, and roughly how long they live."""
    kinds = [reply.value for reply in client.pipeline([("TYPE", key) for key in keys])]
    readers = {b"hash": "HGETALL", b"set": "SMEMBERS"}
    held = [reply.plain() for reply in client.pipeline([(readers.get(kind, "GET"), key) for kind, key in zip(kinds, keys)])]
    lives = [reply.value >= 0 for reply in client.pipeline([("PTTL", key) for key in keys])]
    return [(kind, sorted(value) if isinstance(value, list) else value, live) for kind, value, live in zip(kinds, held, lives)]


def check_other_ways(checks, source, target):
    """redis-server's own MIGRATE, and RESTORE through redis-cli --pipe."""
    theirs, ours = resp.Client(source, timeout=SECONDS), resp.Client(target)
    answer = theirs.command("MIGRATE", "127.0.0.1", target, "", 5, MIGRATE_MS, "COPY", "KEYS", *MOVED)
    checks.equal("MIGRATE of redis-server", answer.text(), "+OK")
    answer = theirs.command("MIGRATE", "127.0.0.1", target, "s:2", 5, MIGRATE_MS, "COPY")
    checks.equal("MIGRATE of one key", answer.text(), "+OK")
    answer = theirs.command("MIGRATE", "127.0.0.1", target, "s:2", 5, MIGRATE_MS, "COPY")
    checks.check("MIGRATE over a key that is there", "BUSYKEY" in answer.text(), answer.text())
    ours.command("SELECT", 5)
    checks.equal("what MIGRATE has brought", values(ours, MOVED), values(theirs, MOVED))
    payloads = [reply.value for reply in theirs.pipeline([("DUMP", key) for key in MOVED])]
    piped = resp.encode(("SELECT", 6)) + b"".join(resp.encode(("RESTORE", key, 0, payload)) for key, payload in zip(MOVED, payloads))
    done = subprocess.run(["redis-cli", "-p", str(target), "--pipe"], input=piped, capture_output=True, timeout=SECONDS)
    checks.check("RESTORE by --pipe", f"errors: 0, replies: {len(MOVED) + 1}".encode() in done.stdout, done.stdout + done.stderr)
    ours.command("SELECT", 6)
    checks.equal("what --pipe has brought", [held[:2] for held in values(ours, MOVED)], [held[:2] for held in values(theirs, MOVED)])
    for client in (theirs, ours):
        client.close()


def main():
    options = servers.argument_parser(__doc__).parse_args()
    checks = Checks()
    with servers.Server("redis") as source, servers.Server(options.server, options.backend) as target:
        fill(source.port)
        status, out, progress = run(source.port, target.port)
        checks.equal("status when a list is left", status, 1)
        checks.check("the list is named", "1 key left" in out and "1 list: list" in out, out)
        checks.check("progress is shown", "100 %" in progress, progress)
        compare(checks, "copied", source.port, target.port)
        status, out, _ = run(source.port, target.port)
        checks.check("what is there already is left", status == 1 and f"{STRINGS + 304:,} keys left" in out, out)
        check_other_ways(checks, source.port, target.port)
        client = resp.Client(source.port)
        client.pipeline([("DEL", "list"), ("SET", "s:1", "changed"), ("HDEL", "h:5", "f")])
        client.close()
        status, out, _ = run(source.port, target.port, "--replace", "--plain")
        checks.equal("status when all is copied", status, 0)
        compare(checks, "replaced", source.port, target.port)
        checks.equal("status without a source", run(1, target.port)[0], 2)
        checks.equal("status when the target names a database", run(source.port, f"{target.port}/3")[0], 2)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
