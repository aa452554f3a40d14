#!/usr/bin/env python3
"""Drives the real redis-cli in its modes against a server, and redis-benchmark's default run.

Where the output does not depend on the server's internals it is compared with what redis-cli prints beside redis-server; else
it must have the lines that a person reads.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import resp
import servers
from checks import Checks

SECONDS = 20  # the longest a mode may take
PASSWORD = "secret"
BENCHMARK_TESTS_WE_SERVE = "ping_inline,ping_mbulk,set,get,incr,hset,mset"


def run(server, *args, stdin=b"", seconds=SECONDS):
    """Output, errors and status of one redis-cli."""
    command = ["redis-cli", "-p", str(server.port)] + [str(a) for a in args]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=seconds, env=environment())
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(errors="replace"), "it does not end", None
    return done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"), done.returncode


def environment(**more):
    return dict(os.environ, HOME="/nonexistent", REDISCLI_HISTFILE="/dev/null", **more)


class Follow:
    """A redis-cli that runs until it is told to end; its output is awaited."""

    def __init__(self, server, *args, terminal=False):
        command = ["redis-cli", "-p", str(server.port)] + [str(a) for a in args]
        self.output = b""
        if terminal:
            self.fd, slave = pty.openpty()
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
            self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, close_fds=True,
                                            start_new_session=True, env=environment(TERM="xterm", COLUMNS="200"))
            os.close(slave)
        else:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                            stderr=subprocess.STDOUT, env=environment())
            self.fd = self.process.stdout.fileno()

    def wait_for(self, pattern, seconds=SECONDS, start=0):
        """Reads on until the output from `start` on has the pattern; None at the deadline."""
        deadline = time.monotonic() + seconds
        while True:
            match = re.search(pattern, self.output[start:])
            if match:
                return match
            ready, _, _ = select.select([self.fd], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                return None
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return None
            if not data:
                return None
            self.output += data

    def type(self, text):
        os.write(self.fd, text)

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        else:
            os.close(self.fd)


def fill(server):
    """The keys that the modes look at: 40 strings, 5 hashes."""
    client = resp.Client(server.port)
    client.command("FLUSHALL")
    client.pipeline([("SET", f"string:{i}", "x" * i) for i in range(40)] +
                    [("HSET", f"hash:{i}") + tuple(w for f in range(i + 1) for w in (f"f{f}", "v")) for i in range(5)])
    client.close()


def same(checks, reference, ours, *args, stdin=b"", edit=lambda text: text):
    """The same redis-cli command line prints the same on both and ends with the same status."""
    theirs, mine = run(reference, *args, stdin=stdin), run(ours, *args, stdin=stdin)
    checks.equal("redis-cli " + " ".join(map(str, args)) + (" < " + stdin[:60].decode(errors="replace") if stdin else ""),
                 (edit(mine[0]), edit(mine[1]), mine[2]), (edit(theirs[0]), edit(theirs[1]), theirs[2]))


def sorted_lines(text):
    return "\n".join(sorted(text.split("\n")))


def summary(text):
    """The lines at the end of --bigkeys or --memkeys, without those of types we do not have."""
    lines = text.partition("summary")[2].split("\n")
    return [line for line in lines if re.match(r"Sampled|Total|Biggest|\d+ (hash|string)", line)]


def check_plain(checks, reference, ours):
    for args in (("GET", "string:3"), ("--no-raw", "HGETALL", "hash:2"), ("-3", "--no-raw", "HGETALL", "hash:2"),
                 ("-2", "--no-raw", "HGETALL", "hash:2"), ("--json", "HGETALL", "hash:2"), ("--json", "GET", "none"),
                 ("-3", "--json", "HGETALL", "hash:1"), ("--csv", "HGETALL", "hash:2"), ("--quoted-json", "GET", "string:5"),
                 ("-n", 3, "SET", "k", "v"), ("-n", 3, "GET", "k"), ("GET", "k"), ("-n", 99, "GET", "k"),
                 ("-r", 3, "INCR", "n"), ("NOTACOMMAND", "x"), ("-e", "NOTACOMMAND", "x"), ("GET",),
                 ("-3", "--no-raw", "GET", "none"), ("--no-raw", "GET", "none"), ("--no-raw", "HSET", "k2", "f", "v"),
                 ("-3", "--no-raw", "CONFIG", "GET", "maxmemory"), ("--json", "CONFIG", "GET", "maxmemory"),
                 ("-3", "PING"), ("ECHO", "\u00e9"), ("--quoted-input", "SET", '"a\\x00b"', '"c\\nd"'),
                 ("--quoted-input", "GET", '"a\\x00b"'), ("CONFIG", "SET", "notify-keyspace-events", "KEA"),
                 ("CLUSTER", "INFO"), ("SELECT", 2), ("DEBUG", "SLEEP", 0), ("SAVE",)):
        same(checks, reference, ours, *args)
    same(checks, reference, ours, "-x", "SET", "from-stdin", stdin=b"a\x00b\n")
    same(checks, reference, ours, "GET", "from-stdin")
    same(checks, reference, ours, stdin=b"SET a 1\nINCR a\nHGETALL none\nGET none\nNOTACOMMAND\nMULTI\nGET a\nEXEC\nECHO \"q\\x41\"\n")
    same(checks, reference, ours, "--no-raw", stdin=b"MULTI\nSET a 1\nDISCARD\nEXEC\nSELECT 5\nSET k v\nGET k\nDEL k\n")
    same(checks, reference, ours, "-3", stdin=b"HGETALL hash:3\nGET none\nEXISTS a\n")


def check_scan(checks, reference, ours):
    for args in (("--scan",), ("--scan", "--pattern", "hash:*"), ("--scan", "--pattern", "string:1?"),
                 ("--scan", "--pattern", "none*"), ("--scan", "--count", 7), ("-3", "--scan"), ("-n", 9, "--scan"),
                 ("--scan", "--quoted-pattern", '"string:3\\x39"')):
        same(checks, reference, ours, *args, edit=sorted_lines)
    theirs, (out, err, status) = run(reference, "--bigkeys")[0], run(ours, "--bigkeys")
    checks.check("--bigkeys ends well", status == 0 and not err, f"{status} {err} {out[-300:]}")
    checks.equal("--bigkeys' summary", summary(out), summary(theirs))
    theirs, (out, err, status) = run(reference, "--memkeys")[0], run(ours, "--memkeys")
    checks.check("--memkeys ends well", status == 0 and not err, f"{status} {err} {out[-300:]}")
    checks.equal("--memkeys samples all", summary(out)[:2], summary(theirs)[:2])
    for kind in ("hash", "string"):
        checks.check(f"--memkeys finds sizes of {kind}", re.search(f"Biggest +{kind} found .* has [1-9]\\d* bytes", out), out[-1500:])
    out, err, status = run(ours, "--memkeys", "--memkeys-samples", 2)
    checks.check("--memkeys-samples ends well", status == 0 and not err, f"{status} {err}")
    out, err, status = run(ours, "--hotkeys")
    checks.check("--hotkeys says that the policy is not LFU", "ERR" in out + err, out + err)


def check_pipe(checks, ours):
    count = 5000
    data = b"".join(resp.encode(("SET", f"pipe:{i}", i)) for i in range(count))
    out, err, status = run(ours, "--pipe", stdin=data)
    checks.check("--pipe", status == 0 and f"errors: 0, replies: {count}" in out, out + err)
    out, err, _ = run(ours, "--pipe", stdin=data + resp.encode(("NOTACOMMAND",)))
    checks.check("--pipe counts errors", f"errors: 1, replies: {count + 1}" in out, out + err)
    out, err, status = run(ours, "--pipe", stdin=b"SET inline 1\r\nGET inline\r\n")
    checks.check("--pipe with inline commands", status == 0 and "errors: 0, replies: 2" in out, out + err)
    out, _, _ = run(ours, "GET", f"pipe:{count - 1}")
    checks.equal("the last piped key", out.strip(), str(count - 1))


def check_rolling(checks, ours):
    """Modes that go on until they are ended."""
    # On a terminal, because redis-cli keeps what it writes to a pipe until it has 4 kB.
    stat = Follow(ours, "--stat", "-i", 0.05, terminal=True)
    line = rb"\n(\d+) +[\d.]+[KMGB]? +(\d+) +\d+ +(\d+) \(\+\d+\) +(\d+)"
    checks.check("--stat prints lines", stat.wait_for(line + rb"[^\n]*\n(?:[^\n]*\n){3}"), stat.output)
    match = re.search(line, stat.output)
    checks.check("--stat knows keys, clients, requests, connections", match and all(int(n) > 0 for n in match.groups()),
                 stat.output)
    stat.end()
    out, err, status = run(ours, "--latency", "-i", 0.2)
    checks.check("--latency", status == 0 and re.fullmatch(r"\d+ \d+ [\d.]+ [1-9]\d*\s*", out), out + err)
    history = Follow(ours, "--latency-history", "-i", 0.2, terminal=True)
    checks.check("--latency-history", history.wait_for(rb"max: \d+, avg: [\d.]+ \(\d+ samples\) -- [\d.]+ seconds range\r\n"),
                 history.output)
    history.end()


def check_listeners(checks, ours):
    """MONITOR, SUBSCRIBE and PSUBSCRIBE show what another redis-cli does."""
    for protocol in ("-2", "-3"):
        monitor = Follow(ours, protocol, "MONITOR")
        subscriber = Follow(ours, protocol, "SUBSCRIBE", "news", "other")
        pattern = Follow(ours, protocol, "--csv", "PSUBSCRIBE", "n*")
        checks.check("MONITOR says OK", monitor.wait_for(rb"^OK\n"), monitor.output)
        checks.check("SUBSCRIBE is acknowledged", subscriber.wait_for(rb"subscribe\nother\n2\n"), subscriber.output)
        checks.check("PSUBSCRIBE is acknowledged", pattern.wait_for(rb'"psubscribe","n\*",1\n'), pattern.output)
        run(ours, "-n", 4, "SET", "seen", "by monitor")
        run(ours, "PUBLISH", "news", "hello\nworld")
        checks.check("MONITOR shows commands", monitor.wait_for(rb'\d+\.\d{6} \[4 127\.0\.0\.1:\d+\] "SET" "seen" "by monitor"\n'),
                     monitor.output)
        checks.check("MONITOR escapes", monitor.wait_for(rb'"PUBLISH" "news" "hello\\nworld"\n'), monitor.output)
        checks.check("SUBSCRIBE receives", subscriber.wait_for(rb"message\nnews\nhello\nworld\n"), subscriber.output)
        checks.check("PSUBSCRIBE receives", pattern.wait_for(rb'"pmessage","n\*","news","hello\\nworld"\n'), pattern.output)
        for follow in (monitor, subscriber, pattern):
            follow.end()


def check_terminal(checks, ours):
    """An interactive session: redis-cli asks for COMMAND DOCS to show hints while one types."""
    session = Follow(ours, terminal=True)
    prompt = b"127.0.0.1:%d> " % ours.port
    if not checks.check("there is a prompt", session.wait_for(re.escape(prompt)), session.output):
        session.end()
        return

    def say(text, answer):
        start = len(session.output)
        session.type(text + b"\r")
        match = session.wait_for(answer, start=start)
        checks.check(f"{text.decode()} answers {answer!r}", match, session.output[start:])
        # What is typed before the next prompt is thrown away by the terminal.
        session.wait_for(rb"127\.0\.0\.1:\d+[^>\r\n]*> ", start=start + match.end() if match else len(session.output))

    say(b"set greeting hello", rb"\nOK\r")
    say(b"get greeting", rb'\n"hello"\r')
    say(b"get none", rb"\n\(nil\)\r")
    say(b"hset h f v", rb"\n\(integer\) 1\r")
    say(b"hgetall h", rb'\n1\) "f"\r\n2\) "v"\r')
    say(b"select 3", rb"\nOK\r")
    say(b"multi", rb"\nOK\r")
    checks.check("the prompt shows database and transaction", re.search(rb"\[3\]\(TX\)> ", session.output), session.output[-300:])
    say(b"get x", rb"\nQUEUED\r")
    say(b"exec", rb"\n1\) \(nil\)\r")
    say(b"hello 3", rb"\n1# \"server\" => \"redis\"\r")
    say(b"help get", rb"GET\x1b.*key")
    say(b"notacommand", rb"\n\(error\) ERR unknown command 'notacommand', with args beginning with:")
    start = len(session.output)
    session.type(b"hset ")
    # The hint is what COMMAND DOCS says of the arguments: ours or, when the server tells none, redis-cli's own table.
    checks.check("a hint while typing", session.wait_for(rb"key", start=start), session.output[start:])
    session.type(b"\x15" + b"subscribe ch\r")
    # redis-cli says "Reading messages" before it has sent the command.
    acknowledged = rb'1\) "subscribe"\r\n2\) "ch"\r\n3\) \(integer\) 1\r\n'
    checks.check("SUBSCRIBE in a session", session.wait_for(acknowledged, start=start), session.output[start:])
    run(ours, "PUBLISH", "ch", "to the terminal")
    checks.check("a message in a session", session.wait_for(rb"to the terminal", start=start), session.output[start:])
    session.end()


def check_info(checks, reference, ours):
    theirs, mine = (run(server, "INFO")[0] for server in (reference, ours))
    for name in ("redis_version", "redis_mode", "os", "process_id", "tcp_port", "uptime_in_seconds", "connected_clients",
                 "blocked_clients", "used_memory", "used_memory_human", "maxmemory", "maxmemory_policy", "loading",
                 "rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_enabled", "total_connections_received",
                 "total_commands_processed", "keyspace_hits", "keyspace_misses", "pubsub_channels", "pubsub_patterns", "role",
                 "connected_slaves", "cluster_enabled", "used_cpu_sys", "db0"):
        checks.check(f"redis-server's INFO has {name}", f"\n{name}:" in theirs.replace("\r", ""))
        checks.check(f"INFO has {name}", f"\n{name}:" in mine.replace("\r", ""))
    checks.check("INFO's version is 7", re.search(r"\nredis_version:7\.\d+\.\d+\r?\n", mine), mine[:200])
    checks.check("INFO's lines are fields, headers or empty", all(
        re.fullmatch(r"(# [A-Z]\w*|[\w.\- |]+:.*|)", line) for line in mine.replace("\r", "").split("\n")), mine)
    keys = re.search(r"db0:keys=(\d+),expires=(\d+),avg_ttl=\d+", mine)
    checks.check("INFO counts keys", keys and int(keys.group(1)) > 0, mine[-300:])


def check_password(checks, program):
    with servers.Server(program, password=PASSWORD) as server:
        out, err, _ = run(server, "PING")
        checks.check("without -a", "NOAUTH Authentication required." in out + err, out + err)
        out, err, _ = run(server, "-a", PASSWORD, "PING")
        checks.check("-a", out == "PONG\n" and "Warning" in err, out + err)
        out, err, _ = run(server, "-a", PASSWORD, "--no-auth-warning", "-3", "--json", "GET", "none")
        checks.equal("-a with -3 and --json", (out, err), ("null\n", ""))
        out, err, _ = run(server, "-a", "wrong", "--no-auth-warning", "PING")
        checks.check("a wrong -a", "WRONGPASS" in out + err and "NOAUTH" in out + err, out + err)
        out, err, _ = run(server, "-u", f"redis://default:{PASSWORD}@127.0.0.1:{server.port}/5", "--no-auth-warning", "SET", "k", "v")
        checks.equal("-u with user, password and database", (out, err), ("OK\n", ""))
        out, err, _ = run(server, "-a", PASSWORD, "--no-auth-warning", "-n", 5, "GET", "k")
        checks.equal("-a with -n", (out, err), ("v\n", ""))


def check_benchmark(checks, ours, quick):
    """redis-benchmark's default run. It asks CONFIG GET first; the tests of commands we do not have may fail."""
    tests = ["-t", BENCHMARK_TESTS_WE_SERVE]
    for extra in (tests, tests + ["-P", "16"], tests + ["-3"]) + (() if quick else ([],)):
        command = ["redis-benchmark", "-p", str(ours.port), "-q", "-n", "1000"] + extra
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, text=True)
        except subprocess.TimeoutExpired as error:
            checks.check(" ".join(command), False, f"it does not end: {error.stdout}")
            continue
        rates = re.findall(r"([A-Z][A-Z_]+[^:\r\n]*): ([\d.]+|inf|nan) requests per second", done.stdout)
        if extra:
            checks.check(" ".join(command[3:]), done.returncode == 0 and len(rates) >= 7, done.stdout + done.stderr)
        else:
            # It ends at the first error (LPUSH is not a command of ours); before that come PING, SET, GET and INCR.
            checks.check(" ".join(command[3:]), {"PING_INLINE", "SET", "GET", "INCR"} <= {name for name, _ in rates},
                         done.stdout + done.stderr)


def main():
    parser = servers.argument_parser(__doc__, backend=False)
    parser.add_argument("--quick", action="store_true", help="without redis-benchmark's whole default run")
    options = parser.parse_args()
    checks = Checks()
    with servers.Server("redis") as reference, servers.Server(options.server) as ours:
        for server in (reference, ours):
            fill(server)
        check_plain(checks, reference, ours)
        check_scan(checks, reference, ours)
        check_info(checks, reference, ours)
        check_pipe(checks, ours)
        check_rolling(checks, ours)
        check_listeners(checks, ours)
        check_terminal(checks, ours)
        check_benchmark(checks, ours, options.quick)
        check_password(checks, options.server)
        checks.check("the server lives", ours.alive(), ours.log_tail())
        checks.check("the log has no fault", not ours.complaints(), ours.complaints())
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
