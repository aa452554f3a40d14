#!/usr/bin/env python3
"""Checks what a case cannot say, because it is about many answers at once or about the end of the server: the guarantees of SCAN,
fairness of random picks, order of replies and messages, CLIENT KILL by kind, SHUTDOWN.

Every check runs against redis-server too, which shows that the check is right.
"""

import random
import sys
import threading
import time

import resp
import servers
from checks import Checks

STABLE = 1500
EXPIRY_GOAL_SECONDS = 0.1  # what we promise; the check allows far more, for a machine that stands still for seconds
EXPIRY_LIMIT_SECONDS = 8.0


def scan_all(client, command, between, limit=200000):
    """Items of a whole iteration, with repetitions, and what is done between its steps. None when it does not end."""
    cursor, items = b"0", []
    for _ in range(limit):
        reply = client.command(*[cursor if word == "@" else word for word in command])
        cursor, found = reply.value[0].value, [item.value for item in reply.value[1].value]
        items += found
        if cursor == b"0":
            return items
        between()
    return None


class Churn:
    """Adds and removes items while a scan goes on: first far more than there were, then hardly any."""

    def __init__(self, client, add, remove, seed):
        self.client, self.add, self.remove = client, add, remove
        self.random = random.Random(seed)
        self.step = 0

    def __call__(self):
        self.step += 1
        if self.step <= 60:
            numbers = range(self.step * 100, self.step * 100 + 100)
            self.client.pipeline([self.add(n) for n in numbers])
        elif self.step <= 120:
            numbers = range((self.step - 60) * 100, (self.step - 60) * 100 + 100)
            self.client.pipeline([self.remove(n) for n in numbers])
        else:
            number = self.random.randrange(6000)
            self.client.command(*(self.add if self.step % 2 else self.remove)(number))


def check_scan(server, checks):
    """What is there from start to end is returned at least once, whatever comes and goes meanwhile."""
    client, other = resp.Client(server.port), resp.Client(server.port)
    for count in (3, 50, 1000):
        client.command("FLUSHALL")
        client.pipeline([("SET", f"stable:{i}", i) for i in range(STABLE)])
        churn = Churn(other, lambda n: ("SET", f"moving:{n}", n), lambda n: ("DEL", f"moving:{n}"), count)
        items = scan_all(client, ("SCAN", "@", "COUNT", count), churn)
        stable = {f"stable:{i}".encode() for i in range(STABLE)}
        if checks.check(f"SCAN COUNT {count} ends", items is not None):
            checks.equal(f"SCAN COUNT {count} misses", sorted(stable - set(items))[:5], [])
            strange = [i for i in items if not i.startswith((b"stable:", b"moving:"))]
            checks.equal(f"SCAN COUNT {count} invents", strange, [])
    client.command("FLUSHALL")
    for count in (3, 200):
        client.command("DEL", "h")
        client.pipeline([("HSET", "h", f"stable:{i}", i) for i in range(STABLE)])
        churn = Churn(other, lambda n: ("HSET", "h", f"moving:{n}", n), lambda n: ("HDEL", "h", f"moving:{n}"), count)
        flat = scan_all(client, ("HSCAN", "h", "@", "COUNT", count), churn)
        if checks.check(f"HSCAN COUNT {count} ends", flat is not None):
            found = dict(zip(flat[::2], flat[1::2]))
            wrong = [i for i in range(STABLE) if found.get(f"stable:{i}".encode()) != str(i).encode()]
            checks.equal(f"HSCAN COUNT {count} misses", wrong[:5], [])
        client.command("DEL", "t")
        client.command("SADD", "t", *(f"stable:{i}" for i in range(STABLE)))
        churn = Churn(other, lambda n: ("SADD", "t", f"moving:{n}"), lambda n: ("SREM", "t", f"moving:{n}"), count)
        members = scan_all(client, ("SSCAN", "t", "@", "COUNT", count), churn)
        if checks.check(f"SSCAN COUNT {count} ends", members is not None):
            missed = {f"stable:{i}".encode() for i in range(STABLE)} - set(members)
            checks.equal(f"SSCAN COUNT {count} misses", sorted(missed)[:5], [])
    client.close()
    other.close()


def check_random_picks(server, checks):
    client = resp.Client(server.port)
    client.command("FLUSHALL")
    client.pipeline([("SET", f"k{i}", i) for i in range(8)] + [("HSET", "h", f"f{i}", i) for i in range(8)])
    keys = {r.value for r in client.pipeline([("RANDOMKEY",)] * 600)}
    checks.equal("RANDOMKEY finds every key", keys, {f"k{i}".encode() for i in range(8)} | {b"h"})
    fields = {r.value for r in client.pipeline([("HRANDFIELD", "h")] * 600)}
    checks.equal("HRANDFIELD finds every field", fields, {f"f{i}".encode() for i in range(8)})
    for _ in range(20):
        some = client.command("HRANDFIELD", "h", 5).plain()
        if len(set(some)) != 5:
            checks.check("HRANDFIELD with a count picks different fields", False, some)
    client.command("HSET", "big", *[w for i in range(1000) for w in (f"f{i}", i)])
    picked = client.command("HRANDFIELD", "big", -2000, "WITHVALUES").plain()
    pairs = list(zip(picked[::2], picked[1::2]))
    checks.equal("HRANDFIELD -2000 gives so many", len(pairs), 2000)
    checks.check("HRANDFIELD's values belong to its fields", all(f == b"f" + v for f, v in pairs))
    checks.check("HRANDFIELD repeats, and picks widely", 500 < len(set(pairs)) < 1000, len(set(pairs)))
    checks.equal("HRANDFIELD 600 of 1000", len(set(client.command("HRANDFIELD", "big", 600).plain())), 600)
    client.command("SADD", "members", *range(1000))
    picked = client.command("SRANDMEMBER", "members", -2000).plain()
    checks.check("SRANDMEMBER repeats, and picks widely", len(picked) == 2000 and 500 < len(set(picked)) < 1000, len(set(picked)))
    taken = [list(client.command("SPOP", "members", 300).plain()) for _ in range(3)] + [[client.command("SPOP", "members").value]]
    gone = {member for some in taken for member in some}
    checks.equal("SPOP takes different members", len(gone), 901)
    left = set(client.command("SMEMBERS", "members").plain())
    checks.check("SPOP leaves the others", len(left) == 99 and not left & gone, len(left))
    client.close()


def check_pipelines(server, checks):
    """Replies come in the order of requests, also when one write carries thousands of them."""
    client = resp.Client(server.port, timeout=20)
    client.command("FLUSHALL")
    commands, expected = [], []
    for i in range(4000):
        commands += [("ECHO", f"e{i}"), ("INCR", "n"), ("SET", f"k{i % 7}", "x" * (i % 300)), ("STRLEN", f"k{i % 7}")]
        expected += [f'"e{i}"', f":{i + 1}", "+OK", f":{i % 300}"]
    sender = threading.Thread(target=client.send_raw, args=(b"".join(resp.encode(c) for c in commands),))
    sender.start()
    wrong = [(i, want, got) for i, (want, got) in enumerate((w, client.read().text()) for w in expected) if want != got]
    sender.join()
    checks.equal("replies of a long pipeline", wrong[:3], [])
    client.close()


def check_message_order(server, checks, publishers=4, count=500):
    """Each subscriber gets every publisher's messages once and in order; an acknowledged subscription misses nothing later."""
    subscribers = [resp.Client(server.port, timeout=20) for _ in range(3)]
    for protocol, subscriber in zip((2, 3, 2), subscribers):
        subscriber.hello(protocol)
        subscriber.send("SUBSCRIBE", "order")
        subscriber.read_reply()

    def publish(name):
        client = resp.Client(server.port, timeout=20)
        replies = client.pipeline([("PUBLISH", "order", f"{name} {i}") for i in range(count)])
        checks.check("every PUBLISH counts its receivers", all(r.value == 3 for r in replies), [r.text() for r in replies[:3]])
        client.close()

    threads = [threading.Thread(target=publish, args=(p,)) for p in range(publishers)]
    for thread in threads:
        thread.start()
    for subscriber in subscribers:
        seen = {p: [] for p in range(publishers)}
        for _ in range(publishers * count):
            name, number = subscriber.read_push().plain()[2].split()
            seen[int(name)].append(int(number))
        checks.check("messages of each publisher in order, once", all(s == list(range(count)) for s in seen.values()))
        subscriber.command("RESET")
        checks.equal("nothing more", len(subscriber.pushes), 0)
        subscriber.close()
    for thread in threads:
        thread.join()


def check_expiry_events(server, checks, count=200):
    """Keys that nobody touches: each raises one expired event, soon after its time."""
    client, events = resp.Client(server.port), resp.Client(server.port)
    client.command("FLUSHALL")
    client.command("CONFIG", "SET", "notify-keyspace-events", "Ex")
    events.send("PSUBSCRIBE", "__keyevent@0__:expired")
    events.read_reply()
    deadlines = {f"soon:{i}".encode(): int(time.time() * 1000) + 100 + i for i in range(count)}
    client.pipeline([("SET", key, "v", "PXAT", at) for key, at in deadlines.items()])
    client.pipeline([("SET", f"later:{i}", "v", "EX", 1000) for i in range(count)])
    late = []
    for _ in range(count):
        key = events.read_push().plain()[3]
        late.append(time.time() - deadlines.pop(key) / 1000)
    checks.equal("each expiry is told", deadlines, {})
    checks.check("no event before its time", min(late) > -0.002, min(late))
    checks.check("no event much too late", max(late) < EXPIRY_LIMIT_SECONDS, f"{max(late):.3f} s")
    print(f"     expired events: latest {max(late) * 1000:.0f} ms after its time (goal {EXPIRY_GOAL_SECONDS * 1000:.0f} ms)")
    events.command("RESET")
    checks.equal("none twice", len(events.pushes), 0)
    checks.equal("the others stay", client.command("DBSIZE").value, count)
    client.command("CONFIG", "SET", "notify-keyspace-events", "")
    client.close()
    events.close()


def check_client_kill(server, checks):
    """CLIENT KILL by type and address; SKIPME."""
    own, normal, subscriber = (resp.Client(server.port) for _ in range(3))
    subscriber.send("SUBSCRIBE", "ch")
    subscriber.read_reply()
    checks.equal("CLIENT KILL TYPE pubsub", own.command("CLIENT", "KILL", "TYPE", "pubsub").text(), ":1")
    checks.check("the subscriber is gone", ends(subscriber))
    host, port = normal.socket.getsockname()
    checks.equal("CLIENT KILL addr", own.command("CLIENT", "KILL", f"{host}:{port}").text(), "+OK")
    checks.check("the connection is gone", ends(normal))
    others = [resp.Client(server.port) for _ in range(3)]
    for other in others:
        other.command("PING")
    checks.equal("CLIENT KILL TYPE normal", own.command("CLIENT", "KILL", "TYPE", "normal").text(), ":3")
    checks.check("all others are gone", all(ends(other) for other in others))
    checks.equal("but not oneself", own.command("PING").text(), "+PONG")
    checks.equal("CLIENT KILL SKIPME no", own.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no").text(), ":1")
    checks.check("oneself", ends(own))
    for client in [own, normal, subscriber] + others:
        client.close()


def ends(client):
    try:
        client.read()
    except resp.Closed:
        return True
    except resp.Timeout:
        return False
    return False


def check_pause(server, checks):
    """CLIENT PAUSE WRITE holds a write of another connection until UNPAUSE; ALL holds everything, for its time."""
    own, writer = resp.Client(server.port), resp.Client(server.port)
    own.command("FLUSHALL")
    own.command("CLIENT", "PAUSE", 60000, "WRITE")
    writer.send("SET", "k", "v")
    checks.equal("a read goes on", own.command("GET", "k").text(), "nil")
    own.command("CLIENT", "UNPAUSE")
    checks.equal("the write is done after UNPAUSE", writer.read_reply().text(), "+OK")
    started = time.monotonic()
    own.command("CLIENT", "PAUSE", 150, "ALL")
    checks.equal("PAUSE ALL holds a PING", writer.command("PING").text(), "+PONG")
    checks.check("for its time", time.monotonic() - started > 0.1, f"{time.monotonic() - started:.3f} s")
    own.close()
    writer.close()


def check_counters(server, checks, connections=6, count=300):
    """INCR, HINCRBY and transactions from several connections: no update is lost; SET NX is won once."""
    first = resp.Client(server.port)
    first.command("FLUSHALL")
    won = []

    def work():
        client = resp.Client(server.port, timeout=20)
        client.pipeline([c for _ in range(count) for c in
                         (("INCR", "n"), ("HINCRBY", "h", "f", 2), ("MULTI",), ("INCR", "a"), ("DECR", "b"), ("EXEC",))])
        won.extend(i for i in range(50) if client.command("SET", f"nx:{i}", "me", "NX").text() == "+OK")
        done = 0
        while done < 20:  # an optimistic update, tried again when it fails
            client.command("WATCH", "w")
            value = int(client.command("GET", "w").value or 0)
            replies = client.pipeline([("MULTI",), ("SET", "w", value + 1), ("EXEC",)])
            done += replies[2].kind == "array"
        client.close()

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = connections * count
    values = [r.text() for r in first.pipeline([("GET", "n"), ("HGET", "h", "f"), ("GET", "a"), ("GET", "b"), ("GET", "w")])]
    checks.equal("sums", values, [f'"{total}"', f'"{2 * total}"', f'"{total}"', f'"-{total}"', f'"{20 * connections}"'])
    checks.equal("each SET NX is won once", sorted(won), list(range(50)))
    first.close()


def check_shutdown(program, backend, checks):
    """SHUTDOWN closes the connection without a reply and ends the process well."""
    for words in (("SHUTDOWN",), ("SHUTDOWN", "NOSAVE")):
        with servers.Server(program, backend) as server:
            client, other = resp.Client(server.port), resp.Client(server.port)
            other.command("PING")
            client.send(*words)
            checks.check(f"{' '.join(words)} closes the connection", ends(client))
            checks.check(f"{' '.join(words)} closes the others", ends(other))
            status = servers.wait_until(lambda s=server: s.process.poll() is not None, seconds=10)
            checks.check(f"{' '.join(words)} ends the process well", status and server.process.returncode == 0,
                         server.process.returncode)
            client.close()
            other.close()


def check_server(program, backend, checks):
    with servers.Server(program, backend) as server:
        for check in (check_scan, check_random_picks, check_pipelines, check_message_order, check_expiry_events,
                      check_client_kill, check_pause, check_counters):
            try:
                check(server, checks)
            except (resp.Closed, resp.Timeout, resp.ProtocolError, OSError) as error:
                checks.check(check.__name__, False, f"{type(error).__name__}: {error}")
        checks.check("the server lives", server.alive(), server.log_tail())
        checks.check("the log has no fault", not server.complaints(), server.complaints())
    check_shutdown(program, backend, checks)


def main():
    options = servers.argument_parser(__doc__).parse_args()
    checks = Checks()
    for program in dict.fromkeys(("redis", options.server)):
        print(f"   {program}")
        check_server(program, options.backend, checks)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
