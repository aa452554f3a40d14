#!/usr/bin/env python3
"""Copies an existing Redis into a running Isthmus: every key of every database, with its time to live.

    ./run import redis://[user:password@]host[:port][/db] [--into URL] [--replace] [--plain]

Reads with SCAN, DUMP and PTTL, writes with RESTORE, many at a time; where the target cannot take that, by the commands of
each type (GET and SET, HGETALL and HSET, SMEMBERS and SADD). The source is only read. A key that cannot be taken (a type
that Isthmus does not have, a key that is there already, one of a database above 15) is left out and named at the end.
With /db only that database is copied. Special characters of a password are written as %XX. What clients write to the source meanwhile may or may not be copied.

Exit status: 0 all was copied, 1 some keys were left, 2 it could not be done.
"""

import argparse
import collections
import socket
import sys
import time
import urllib.parse

BATCH = 500  # keys a round trip
NAMED = 5  # so many of the keys that were left are named, of each kind
PROGRESS_SECONDS = 0.2  # on a terminal
LINE_SECONDS = 5  # elsewhere
BAR_WIDTH = 30
SOCKET_SECONDS = 60
# The first byte of what DUMP answers (rdb.h of Redis up to 7.4).
TYPES = {0: "string", 2: "set", 11: "set", 20: "set", 4: "hash", 9: "hash", 13: "hash", 16: "hash", 1: "list", 10: "list",
         14: "list", 18: "list", 3: "zset", 5: "zset", 12: "zset", 17: "zset", 15: "stream", 19: "stream", 21: "stream",
         6: "module value", 7: "module value",
         # Times to live of fields (Redis 7.4) the target does not know.
         **dict.fromkeys((22, 23, 24, 25), "hash with fields that expire")}
PLURALS = {"hash": "hashes", "zset": "sorted sets"}
# The target cannot take what DUMP answers: it has no RESTORE, or the source writes a newer format than it reads.
CANNOT_RESTORE = (b"ERR unknown command", b"ERR DUMP payload version")


class Failure(Exception):
    """What ends the copy, in one line."""


class ErrorReply:
    """An error that a server answers."""

    def __init__(self, text):
        self.text = text


class Connection:
    """A Redis connection that sends many commands and reads their replies (RESP2)."""

    def __init__(self, url, role):
        self.role = role
        parts = split_url(url, role)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 6379
        path = parts.path.strip("/")
        if path and not (path.isascii() and path.isdigit()):
            raise Failure(f"{role}: {path!r} is not the number of a database")
        self.db = int(path) if path else None
        try:
            self.socket = socket.create_connection((self.host, self.port), SOCKET_SECONDS)
        except (OSError, UnicodeError) as error:
            raise Failure(f"{role}: cannot connect to {self.host}:{self.port}: {error}") from None
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = self.socket.makefile("rb", 1 << 20)
        if parts.password is not None:
            words = [urllib.parse.unquote(word) for word in (parts.username, parts.password) if word]
            self.must("AUTH", *words)

    def many(self, commands):
        """The replies of the commands, in their order."""
        try:
            self.socket.sendall(b"".join(map(encode, commands)))
            return [self._read() for _ in commands]
        except (OSError, ValueError, EOFError) as error:
            raise Failure(f"{self.role}: the connection to {self.host}:{self.port} broke: {error}") from None

    def must(self, *words):
        """The reply of one command, which must not be an error."""
        reply = self.many([words])[0]
        if isinstance(reply, ErrorReply):
            raise Failure(f"{self.role}: {words[0]}: {text_of(reply.text)}")
        return reply

    def _read(self):
        line = self.replies.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError("it was closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            size = int(rest)
            if size < 0:
                return None
            data = self.replies.read(size + 2)
            if len(data) != size + 2:
                raise EOFError("it was closed")
            return data[:-2]
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest
        if kind == b"-":
            return ErrorReply(rest)
        if kind == b"*":
            return [self._read() for _ in range(int(rest))]
        raise ValueError(f"no reply of Redis: {line[:40]!r}")


def split_url(url, role):
    """The parts of a Redis URL. A password with special characters in it falls apart, and no part of it may be shown."""
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else "redis://" + url)
        broken = parts.port == 0 or parts.query or parts.fragment or "@" in parts.path
    except ValueError:
        broken = True
    if broken:
        raise Failure(f"{role}: the URL is not redis://[user:password@]host[:port][/db]; write special characters of a password as %XX"
                      " (# as %23, / as %2F, ? as %3F, [ as %5B, @ as %40, % as %25)")
    if parts.scheme != "redis":
        raise Failure(f"{role}: only redis:// can be reached, not {parts.scheme}://")
    return parts


def encode(words):
    out = [b"*%d\r\n" % len(words)]
    for word in words:
        if not isinstance(word, bytes):
            word = str(word).encode()
        out.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(out)


def text_of(data):
    """Bytes as a person reads them."""
    try:
        text = data.decode()
        return text if text.isprintable() else repr(data)[2:-1]
    except UnicodeDecodeError:
        return repr(data)[2:-1]


def elapsed_ms(since):
    return int((time.monotonic() - since) * 1000)


def plural(kind, count):
    return kind if count == 1 else PLURALS.get(kind, kind + "s")


class Progress:
    """How far it is, on standard error."""

    def __init__(self, total):
        self.total = total
        self.began = time.monotonic()
        self.on_terminal = sys.stderr.isatty()
        self.next = self.began

    def show(self, done, last=False):
        now = time.monotonic()
        if now < self.next and not last:
            return
        self.next = now + (PROGRESS_SECONDS if self.on_terminal else LINE_SECONDS)
        total = max(self.total, done, 1)
        filled = BAR_WIDTH * done // total
        rate = int(done / max(now - self.began, 0.001))
        text = (f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {100 * done // total:3} %  {done:,} of {total:,} keys, "
                f"{rate:,}/s")
        print(("\r" + text + "\x1b[K") if self.on_terminal else text, end="\n" if last or not self.on_terminal else "",
              file=sys.stderr, flush=True)


class Copy:
    """The copy from one server into another, and the counts of what became of the keys."""

    def __init__(self, source, target, replace, plain):
        self.source, self.target = source, target
        self.replace = ["REPLACE"] if replace else []
        self.plain = plain
        self.copied = collections.Counter()  # by type
        self.left = collections.defaultdict(list)  # reason: keys, all of them counted and some of them kept
        self.left_counts = collections.Counter()
        self.seen = set()  # SCAN may give a key twice

    def leave(self, reason, key):
        self.left_counts[reason] += 1
        if len(self.left[reason]) < NAMED:
            self.left[reason].append(key)

    def database(self, db, progress):
        self.source.must("SELECT", db)
        absent = self._is_absent(db)
        self.seen.clear()
        cursor = b"0"
        while True:
            cursor, keys = self.source.must("SCAN", cursor, "COUNT", BATCH)
            new = [key for key in dict.fromkeys(keys) if hash(key) not in self.seen]
            self.seen.update(map(hash, new))
            if absent:
                for key in new:
                    self.leave(f"in database {db}, which the target does not have", key)
            elif new and self.plain:
                self._copy_plainly(new)
            elif new:
                self._copy(new)
            progress.show(sum(self.copied.values()) + sum(self.left_counts.values()))
            if cursor == b"0":
                return

    def _is_absent(self, db):
        """Selects the database at the target. True if there is no such one."""
        answer = self.target.many([("SELECT", db)])[0]
        if not isinstance(answer, ErrorReply):
            return False
        if b"DB index" not in answer.text:
            raise Failure(f"{self.target.role}: SELECT: {text_of(answer.text)}")
        return True

    def _copy(self, keys):
        replies = self.source.many([command for key in keys for command in (("DUMP", key), ("PTTL", key))])
        read_at = time.monotonic()
        batch = []
        for key, payload, left_ms in zip(keys, replies[::2], replies[1::2]):
            if isinstance(payload, ErrorReply):
                raise Failure(f"{self.source.role}: DUMP: {text_of(payload.text)} (with --plain it is not needed)")
            if payload is None or left_ms == -2:
                continue  # it has gone meanwhile
            batch.append((key, payload, max(left_ms - elapsed_ms(read_at), 1) if left_ms != -1 else 0))
        answers = self.target.many([["RESTORE", key, left_ms, payload] + self.replace for key, payload, left_ms in batch])
        by_type = []
        for (key, payload, _), answer in zip(batch, answers):
            kind = TYPES.get(payload[0], "value of an unknown type")
            if not isinstance(answer, ErrorReply):
                self.copied[kind] += 1
            elif answer.text.startswith(CANNOT_RESTORE) and kind in ("string", "hash", "set"):
                by_type.append(key)
            else:
                self._leave_for(answer, kind, key)
        self.plain |= any(isinstance(answer, ErrorReply) and answer.text.startswith(CANNOT_RESTORE[0]) for answer in answers)
        if by_type:
            self._copy_plainly(by_type)

    def _leave_for(self, answer, kind, key):
        if answer.text.startswith(b"BUSYKEY"):
            self.leave("there already (--replace overwrites)", key)
        elif kind not in ("string", "hash", "set"):
            self.leave(kind, key)
        else:
            self.leave("refused: " + text_of(answer.text), key)

    def _copy_plainly(self, keys):
        """By the commands of each type: for a source without DUMP, or with a newer format than the target reads."""
        kinds = self.source.many([("TYPE", key) for key in keys])
        readers = {b"string": "GET", b"hash": "HGETALL", b"set": "SMEMBERS"}
        wanted = [(key, kind) for key, kind in zip(keys, kinds) if kind in readers]
        for key, kind in zip(keys, kinds):
            if kind not in readers and kind != b"none":
                self.leave(text_of(kind), key)
        values = self.source.many([command for key, kind in wanted for command in ((readers[kind], key), ("PTTL", key))])
        read_at = time.monotonic()
        there = [0] * len(wanted) if self.replace else self.target.many([("EXISTS", key) for key, _ in wanted])
        writes = []
        for i, (key, kind) in enumerate(wanted):
            value, left_ms = values[2 * i], values[2 * i + 1]
            if value is None or value == [] or left_ms == -2 or isinstance(value, ErrorReply):
                continue
            if there[i]:
                self.leave("there already (--replace overwrites)", key)
            else:
                left_ms = max(left_ms - elapsed_ms(read_at), 1) if left_ms >= 0 else -1
                writes.append((key, kind, self._commands(key, kind, value, left_ms)))
        self._write_plainly(writes)

    def _commands(self, key, kind, value, left_ms):
        """What makes the key at once: one command where that can be, else a transaction."""
        if kind == b"string":
            return [["SET", key, value] + (["PX", left_ms] if left_ms != -1 else [])]
        name = "HSET" if kind == b"hash" else "SADD"
        commands = [("DEL", key)] if self.replace else []
        commands += [[name, key] + value[i:i + 2 * BATCH] for i in range(0, len(value), 2 * BATCH)]
        if left_ms != -1:
            commands.append(("PEXPIRE", key, left_ms))
        return commands if len(commands) == 1 else [("MULTI",)] + commands + [("EXEC",)]

    def _write_plainly(self, writes):
        answers = iter(self.target.many([command for _, _, commands in writes for command in commands]))
        for key, kind, commands in writes:
            mine = [next(answers) for _ in commands]
            mine += mine[-1] if isinstance(mine[-1], list) else []
            problem = next((answer for answer in mine if isinstance(answer, ErrorReply)), None)
            if problem is None:
                self.copied[text_of(kind)] += 1
            elif problem.text.startswith(CANNOT_RESTORE[0]):
                self.leave(text_of(kind), key)
            else:
                self._leave_for(problem, text_of(kind), key)

    def report(self, seconds):
        """What became of the keys. True if all of them were copied."""
        total = sum(self.copied.values())
        kinds = ", ".join(f"{count:,} {plural(kind, count)}" for kind, count in sorted(self.copied.items()))
        print(f"{total:,} {plural('key', total)} copied in {seconds:.1f} s" + (f": {kinds}" if kinds else ""))
        if not self.left_counts:
            return True
        left = sum(self.left_counts.values())
        print(f"{left:,} {plural('key', left)} left:")
        for reason, count in sorted(self.left_counts.items()):
            names = ", ".join(text_of(key) for key in self.left[reason])
            more = ", ..." if count > len(self.left[reason]) else ""
            print(f"  {count:,} {plural(reason, count) if ' ' not in reason else reason}: {names}{more}")
        return False


def databases(source):
    """{number: keys} of the databases that hold any."""
    text = source.must("INFO", "keyspace").decode()
    found = {}
    for line in text.splitlines():
        name, _, figures = line.partition(":")
        if name.startswith("db") and name[2:].isdigit():
            found[int(name[2:])] = int(dict(pair.split("=") for pair in figures.split(","))["keys"])
    if source.db is not None:
        found = {db: keys for db, keys in found.items() if db == source.db}
    return found


def main():
    parser = argparse.ArgumentParser(prog="./run import", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="redis://[user:password@]host[:port][/db]")
    parser.add_argument("--into", default="redis://127.0.0.1:6379", metavar="URL", help="the Isthmus; default %(default)s")
    parser.add_argument("--replace", action="store_true", help="overwrite keys that are there already")
    parser.add_argument("--plain", action="store_true", help="read by GET, HGETALL and SMEMBERS instead of DUMP; fields of hashes lose times to live of their own")
    options = parser.parse_args()
    began = time.monotonic()
    try:
        source, target = Connection(options.source, "source"), Connection(options.into, "target")
        if target.db is not None:
            raise Failure("target: keys go into the databases that they come from; name none here")
        copy = Copy(source, target, options.replace, options.plain)
        found = databases(source)
        progress = Progress(sum(found.values()))
        for db in sorted(found):
            copy.database(db, progress)
        progress.show(sum(copy.copied.values()) + sum(copy.left_counts.values()), last=True)
    except Failure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted; what has been copied stays", file=sys.stderr)
        return 2
    return 0 if copy.report(time.monotonic() - began) else 1


if __name__ == "__main__":
    sys.exit(main())
