#!/usr/bin/env python3
"""Shows that the comparison notices. The reply reader refuses what is not RESP; and between the runner and a redis-server stands
a proxy that falsifies what the server says: each falsehood must make a case fail, and without any the cases must pass.
"""

import contextlib
import io
import os
import re
import select
import socket
import sys
import threading

import case_run
import caselang
import command_table
import compare
import normalise
import random_commands
import resp
import servers
from checks import Checks
from resp import Reply

NOT_REPLIES = [
    b":1a\r\n", b":\r\n", b":01\r\n", b":-0\r\n", b":+1\r\n", b":1.5\r\n", b"$-2\r\n", b"$x\r\n", b"$3\r\nabcde", b"$ 3\r\nabc\r\n",
    b"*-2\r\n", b"*a\r\n", b"+OK\n", b"+O\rK\r\n", b"?x\r\n", b"OK\r\n", b"\r\n", b"#x\r\n", b",abc\r\n", b"_x\r\n", b"(1x\r\n",
    b"=3\r\nabc\r\n", b"%-1\r\n", b"~x\r\n", b">-1\r\n", b"|1\r\n+a\r\n+b\r\n", b"*1\r\n" * 40
]
REPLIES = [
    (b"+OK\r\n", "+OK"), (b"-ERR x\r\n", "-ERR x"), (b":-12\r\n", ":-12"), (b"$0\r\n\r\n", '""'), (b"$2\r\n\r\n\r\n", '"\\r\\n"'),
    (b"$-1\r\n", "nil"), (b"*-1\r\n", "nil[]"), (b"*0\r\n", "[]"), (b"*2\r\n:1\r\n*1\r\n$1\r\na\r\n", '[:1, ["a"]]'),
    (b"_\r\n", "null"), (b"%1\r\n$1\r\na\r\n:1\r\n", '%{"a": :1}'), (b"~1\r\n:1\r\n", "~[:1]"), (b">1\r\n+x\r\n", ">[+x]"),
    (b"#t\r\n", "#t"), (b",1.5\r\n", "(double 1.5)"), (b"=5\r\ntxt:a\r\n", '="txt:a"'), (b"(123\r\n", "(big_number b'123')")
]
RESP3_REPLIES = [b"_\r\n", b"%0\r\n", b"~0\r\n", b">0\r\n", b"#t\r\n", b",1\r\n", b"=4\r\ntxt:\r\n", b"(1\r\n"]

CASES = """
== events
SET k v EX 100
RENAME k l
DEL l

== replies
SET k v
GET k
INCR n
INCR k
HSET h f v
HGETALL h
HGETALL none
KEYS *
TTL none
TYPE h
PTTL k

== lifetimes
SET k v EX 100
TTL k

== pub/sub
2> SUBSCRIBE ch
PUBLISH ch hello
2< 1
2> UNSUBSCRIBE

== transactions
MULTI
SET a 1
INCR a
EXEC
EXEC
"""
# What the proxy does: a name, the pattern in the server's bytes, what it puts there, and the text of a case that must find it.
LIES = [
    ("another integer", rb":2\r\n", b":3\r\n"),
    ("another error", rb"-ERR value is not an integer", b"-ERR the value is not an integer"),
    ("a simple string instead of a bulk string", rb"\$1\r\nv\r\n", b"+v\r\n"),
    ("another value", rb"\$1\r\nv\r\n", b"$1\r\nw\r\n"),
    ("null instead of an empty array", rb"^\*0\r\n", b"*-1\r\n"),
    ("another event", rb"\$11\r\nrename_from\r\n", b"$11\r\nrename_frod\r\n"),
    ("another channel of an event", rb"__keyevent@0__:del", b"__keyevent@1__:del"),
    ("a message twice", rb"(\*3\r\n\$7\r\nmessage\r\n\$2\r\nch\r\n\$5\r\nhello\r\n)", rb"\1\1"),
    ("another payload", rb"\$5\r\nhello\r\n", b"$5\r\nhallo\r\n"),
    ("a lost message", rb"\*3\r\n\$7\r\nmessage\r\n\$2\r\nch\r\n\$5\r\nhello\r\n", b""),
    ("another count in a notice", rb"(unsubscribe\r\n\$2\r\nch\r\n):0", rb"\1:1"),
    ("another lifetime", rb":(100|9\d)\r\n", b":80\r\n"),
    ("another lifetime in the state", rb":(100000|9\d{4})\r\n", b":80000\r\n"),
    ("another type", rb"\+hash\r\n", b"+list\r\n"),
    ("another answer to EXEC", rb"-ERR EXEC without MULTI", b"-ERR EXEC without a MULTI"),
    ("one reply too many", rb"\+QUEUED\r\n", b"+QUEUED\r\n+QUEUED\r\n"),
]


class Proxy:
    """Passes bytes on, and puts something else for what the server says. Each read of the server's is searched by itself."""

    def __init__(self, port, pattern, replacement):
        self.target = port
        self.pattern = re.compile(pattern)
        self.replacement = replacement
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client):
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self.target)) as server:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    if ready is server:
                        client.sendall(self.pattern.sub(self.replacement, data))
                    else:
                        server.sendall(data)

    def close(self):
        self.listener.close()


def check_reader(checks):
    for raw, text in REPLIES:
        for split in range(len(raw) + 1):
            reader = resp.Reader()
            reader.feed(raw[:split])
            with contextlib.suppress(resp.Incomplete):
                if split < len(raw):
                    checks.check(f"{raw!r} is incomplete at {split}", False, reader.next())
                    break
            reader.feed(raw[split:])
            if reader.next().text() != text or reader.last_raw != raw:
                checks.check(f"{raw!r} split at {split}", False)
                break
        else:
            checks.check(f"{raw!r}", True)
    for raw, protocol in [(raw, None) for raw in NOT_REPLIES] + [(raw, 2) for raw in RESP3_REPLIES] + [(b"$-1\r\n", 3)]:
        reader = resp.Reader(protocol)
        reader.feed(raw)
        try:
            checks.check(f"{raw!r} is not a reply", False, reader.next().text())
        except resp.ProtocolError:
            checks.check("refused", True)
        except resp.Incomplete:
            checks.check(f"{raw!r} is refused", False, "taken for a beginning")


def check_language(checks):
    checks.equal("alternatives", caselang.expand("a {b|c} {|d}"), ["a b ", "a b d", "a c ", "a c d"])
    checks.equal("words", caselang.split_words(r"""a "b\x00 \"\n" 'c"\'' %rep(x,3) %seq(f,2) %pairs(a,b,2) {} $"""),
                 [b"a", b'b\x00 "\n', b"c\"'", b"xxx", b"f0", b"f1", b"a0", b"b0", b"a1", b"b1", b"{}", b"$"])
    for text in ('"a', "'a", '"a"b'):
        try:
            checks.check(f"{text} is refused", False, caselang.split_words(text))
        except caselang.CaseError:
            checks.check("refused", True)
    step = caselang.parse_line(1, "2> !sort !sub(a(b),c) KEYS *")[0]
    checks.equal("normalisers", (step.conn, step.normalisers, step.words), (2, [("sort", None), ("sub", "a(b),c")], [b"KEYS", b"*"]))


def check_normalisers(checks):
    number, other = Reply("integer", 5), Reply("integer", 7)
    checks.check("exact numbers", not normalise.same([number], [other], []))
    checks.check("near numbers", normalise.same([number], [other], [("near", "2")]))
    checks.check("a negative number is exact", not normalise.same([Reply("integer", -1)], [Reply("integer", -2)], [("near", "5")]))
    a, b = Reply("array", [number, other]), Reply("array", [other, number])
    checks.check("order counts", not normalise.same([a], [b], []))
    checks.check("order does not count", normalise.same([a], [b], [("sort", None)]))
    flat = Reply("array", [number, number, other, other])
    checks.check("the order of pairs does not count",
                 normalise.same([flat], [Reply("array", [other, other, number, number])], [("pairs", None)]) and
                 normalise.same([Reply("array", [a, b])], [Reply("array", [b, a])], [("pairs", None)]))
    checks.check("pairs stay together",
                 not normalise.same([Reply("array", [number, other, other, number])], [flat], [("pairs", None)]))
    checks.check("types count", not normalise.same([Reply("bulk", b"5")], [Reply("simple", b"5")], [("any", None)]))
    checks.check("missing texts", not normalise.same([Reply("bulk", b"a b")], [Reply("bulk", b"b")], [("has", "a")]))


def failures_through(pattern, replacement, reference, other, patience_seconds=1.0):
    """How many of CASES fail when the server's bytes are falsified so. What a lie has taken away is not awaited for long."""
    proxy = Proxy(other.port, pattern, replacement)
    comparison = compare.Comparison("redis", "memory:", ports=(reference.port, proxy.port))
    case_run.STEP_SECONDS = compare.EXPIRY_SECONDS = patience_seconds
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            comparison.run(caselang.read_text("selftest", CASES), [2])
    finally:
        proxy.close()
    return len(comparison.failures)


def check_lies(checks):
    with servers.Server("redis") as reference, servers.Server("redis") as other:
        checks.equal("failures without a lie", failures_through(rb"\Z\A", b"", reference, other, resp.REPLY_SECONDS), 0)
        for name, pattern, replacement in LIES:
            checks.check(f"found: {name}", failures_through(pattern, replacement, reference, other) > 0)
        liar = Proxy(other.port, rb"^\*3\r\n", b"*2\r\n")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            good = random_commands.run_seed(1, 300, reference, type("Port", (), {"port": liar.port, "writer": None}), 2)
        checks.check("random commands notice a lie", not good and "seed 1 " in printed.getvalue(), printed.getvalue())
        liar.close()


def check_differences(checks):
    cases = caselang.read_text("selftest", "differs: never-listed\nPING\n")
    checks.equal("an unknown difference", compare.check_names(cases, []), ["differences.md has no never-listed"])
    cases = caselang.read_text("some.txt", "== Some\nGET k\n!raw(1) \"CLIENT ID\\r\\n\"\n")
    checks.equal("a command without a case", command_table.without_case(["get", "never", "client|id", "client|list"], cases),
                 ["client|list", "never"])
    checks.equal("an unused difference", compare.check_names([], ["unused"]), ["no case uses the difference unused"])
    checks.equal("an unknown normaliser", compare.check_names(caselang.read_text("selftest", "!bad PING\n"), []), ["there is no normaliser !bad"])
    count = len(compare.load(None))
    checks.check("there are more than a thousand cases", count > 1000, count)


def main():
    checks = Checks()
    check_reader(checks)
    check_language(checks)
    check_normalisers(checks)
    check_differences(checks)
    check_lies(checks)
    return checks.finish()


if __name__ == "__main__":
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    sys.exit(main())
