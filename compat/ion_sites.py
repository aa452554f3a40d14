#!/usr/bin/env python3
"""Does what ion does with its Redis URL at two sites that are linked, with users of one room at both: each site has its own PostgreSQL
and its own server, and ion's nodes know only theirs.

Checked: what one site joins the other lists; a user who is deleted or expires at one site is told by `del` or `expired` exactly once
to every watcher at both; nothing is left of the locks. (A lock excludes the nodes of its own site only, as the README says.)
"""

import sys

import ion
import resp
import servers
from checks import Checks
from pair import LINK_SECONDS, Pair

ROOM = "/ion/room/across"
USERS = 8
ROUNDS = 10


def has(port, check):
    """Whether a question comes to be answered as `check(client)` wants; a link takes a moment."""
    client = resp.Client(port)
    try:
        return bool(servers.wait_until(lambda: check(client), LINK_SECONDS))
    finally:
        client.close()


def user(number):
    return f"{ROOM}/user{number}"


def listed(client):
    return sorted(client.command("keys", f"{ROOM}/**").plain())


def check_links(pair, checks):
    """What is written at one site is there at the other, both ways."""
    for number in (0, 1):
        node = ion.Node(pair.port(number))
        node.connect(checks)
        node.client.command("set", f"link-{number}", "up")
        node.close()
        checks.check(f"site {number} reaches the other", has(pair.port(number + 1), lambda client, n=number: client.command(
            "get", f"link-{n}").plain() == b"up"), pair.servers[1 - number].log_tail())


def check_joining(pair, checks):
    """Users join at both sites at the same time; both sites list them all, with what each said."""

    def join(number):
        node, key = ion.Node(pair.port(number)), user(number)
        node.locked(key, ("hset", key, "uid", f"user{number}"), ("expire", key, ion.DAY), ("hmset", key, "mid", number))
        node.close()

    ion.run_threads([lambda n=n: join(n) for n in range(USERS)], checks)
    everyone = sorted(user(number).encode() for number in range(USERS))
    for side in (0, 1):
        checks.check(f"site {side} lists all users", has(pair.port(side), lambda client: listed(client) == everyone), "")
        for number in range(USERS):
            said = [b"uid", f"user{number}".encode(), b"mid", str(number).encode()]
            checks.check(f"{user(number)} at site {side} is what he said", has(
                pair.port(side), lambda client, n=number, said=said: client.command("hgetall", user(n)).plain() == said), "")
            checks.check(f"{user(number)} at site {side} keeps its 24 hours", has(
                pair.port(side), lambda client, n=number: ion.DAY - 60 <= client.command("ttl", user(n)).value <= ion.DAY), "")


def check_leaving(pair, checks):
    """Users go by del at the other site, by hdel of the last field, and by expiry; all others stay."""
    watchers = {(number, side): ion.Watcher(pair.port(side), user(number), checks) for number in range(USERS) for side in (0, 1)}
    ways = {0: (("del", user(0)),), 1: (("hdel", user(1), "uid"), ("hdel", user(1), "mid")), 2: (("expire", user(2), 1),),
            3: (("del", user(3)),), 4: (("pexpire", user(4), 300),)}
    goodbyes = {2: b"expired", 4: b"expired"}
    threads = []
    for number, commands in ways.items():
        def leave(number=number, commands=commands):
            # The node of the other site than where the user joined.
            node = ion.Node(pair.port(number + 1))
            node.locked(user(number), *commands)
            node.close()
        threads.append(leave)
    ion.run_threads(threads, checks)
    for number in ways:
        word = goodbyes.get(number, b"del")
        seen = {side: watchers[number, side].events_until(word) for side in (0, 1)}
        # What comes behind it at both sites: a repeat would come before.
        node = ion.Node(pair.port(number + 1))
        node.client.command("publish", f"__keyspace@0__:{user(number)}", "fence")
        for side in (0, 1):
            names = seen[side] + watchers[number, side].events_until(b"fence")
            gone = [name for name in names if name in (b"del", b"expired")]
            checks.equal(f"{user(number)} goes once for its watcher at site {side}", gone, [word])
        node.close()
    rest = sorted(user(number).encode() for number in range(USERS) if number not in ways)
    for side in (0, 1):
        checks.check(f"site {side} lists who stayed", has(pair.port(side), lambda client: listed(client) == rest), "")
    for watcher in watchers.values():
        watcher.close()


def check_coming_and_going(pair, checks):
    """The same users come and go many times; a watcher at the other site is told of each goodbye, once and in order."""

    def comes_and_goes(number):
        key = f"{ROOM}/guest{number}"
        watcher, node = ion.Watcher(pair.port(number + 1), key, checks), ion.Node(pair.port(number))
        for _ in range(ROUNDS):
            node.locked(key, ("hset", key, "a", 1), ("expire", key, ion.DAY), ("del", key))
        node.client.command("publish", f"__keyspace@0__:{key}", "fence")
        checks.equal(f"events of {key} at the other site", watcher.events_until(b"fence"),
                     [b"hset", b"expire", b"del"] * ROUNDS + [b"fence"])
        watcher.close()
        node.close()

    ion.run_threads([lambda n=n: comes_and_goes(n) for n in range(4)], checks)


def check_rest(pair, checks):
    """No lock is left at either site."""
    for side in (0, 1):
        checks.check(f"no lock is left at site {side}",
                     has(pair.port(side), lambda client: client.command("keys", "lock-*").plain() == []), "")
    for server in pair.servers:
        checks.check("the server lives", server.alive(), server.log_tail())
        checks.check("the log has no fault", not server.complaints(), server.complaints())


def main():
    options = servers.argument_parser(__doc__, backend=False).parse_args()
    checks = Checks()
    pair = Pair(options.server)
    try:
        ion.run_threads([lambda: check_links(pair, checks)], checks)
        # Without links nothing else is worth its time-outs.
        parts = [check_joining, check_leaving, check_coming_and_going] if not checks.failed else []
        for part in [*parts, check_rest]:
            ion.run_threads([lambda part=part: part(pair, checks)], checks)
    finally:
        pair.stop()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
