"""A small, strict client of the Redis protocol, RESP2 and RESP3.

Replies keep the type that was on the wire, because the type is part of what is compared. The reader refuses
whatever the protocol's description does not allow, and refuses RESP3 types on a RESP2 connection.
Source: the Redis protocol specification (redis.io, "RESP protocol spec").
"""

import collections
import socket
import time

SUBSCRIPTION_KINDS = (b"subscribe", b"unsubscribe", b"psubscribe", b"punsubscribe", b"ssubscribe", b"sunsubscribe")
MESSAGE_KINDS = {b"message": 3, b"pmessage": 4, b"smessage": 3}
AGGREGATES = ("array", "set", "push")
RESP3_ONLY = b"_%~>,#=(|!"
REPLY_SECONDS = 20.0  # the longest wait for an answer: far more than any takes, for a machine that stands still now and then


class ProtocolError(Exception):
    """The peer sent bytes that are not a reply."""


class Closed(Exception):
    """The peer closed the connection."""


class Timeout(Exception):
    """Nothing came before the deadline."""


class Incomplete(Exception):
    """The bytes so far are the beginning of a reply."""


class Reply:
    """One reply. `value` is bytes (simple, error, bulk, verbatim, big_number), int, float, bool, None (null, null_bulk,
    null_array), a list of replies (array, set, push) or a list of pairs of replies (map)."""

    __slots__ = ("kind", "value")

    def __init__(self, kind, value):
        self.kind = kind
        self.value = value

    def __eq__(self, other):
        return isinstance(other, Reply) and self.kind == other.kind and self.value == other.value

    def __repr__(self):
        return self.text()

    def text(self):
        """One line that shows type and value, so that different replies have different texts."""
        kind, value = self.kind, self.value
        if kind == "simple":
            return "+" + printable(value)
        if kind == "error":
            return "-" + printable(value)
        if kind == "integer":
            return f":{value}"
        if kind == "bulk":
            return '"' + printable(value) + '"'
        if kind == "map":
            return "%{" + ", ".join(f"{k.text()}: {v.text()}" for k, v in value) + "}"
        if kind in AGGREGATES:
            return {"array": "", "set": "~", "push": ">"}[kind] + "[" + ", ".join(i.text() for i in value) + "]"
        if kind in ("null", "null_bulk", "null_array"):
            return {"null": "null", "null_bulk": "nil", "null_array": "nil[]"}[kind]
        if kind == "verbatim":
            return '="' + printable(value) + '"'
        if kind == "boolean":
            return "#t" if value else "#f"
        return f"({kind} {value!r})"

    def is_error(self):
        return self.kind == "error"

    def plain(self):
        """The value without types: bytes, numbers, lists, dicts of them."""
        if self.kind == "map":
            return {_hashable(k.plain()): v.plain() for k, v in self.value}
        if self.kind in AGGREGATES:
            return [item.plain() for item in self.value]
        if self.kind == "verbatim":
            return self.value[4:]
        return self.value


def _hashable(value):
    return tuple(value) if isinstance(value, list) else value


def printable(raw):
    """Bytes as text, with what is not printable ASCII escaped."""
    return "".join(
        chr(b) if 32 <= b < 127 and b not in (34, 92) else {10: "\\n", 13: "\\r", 34: '\\"', 92: "\\\\"}.get(b, f"\\x{b:02x}")
        for b in raw)


def encode(args):
    """A request as an array of bulk strings. Arguments are bytes, text or numbers."""
    out = [b"*%d\r\n" % len(args)]
    for arg in args:
        raw = to_bytes(arg)
        out.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
    return b"".join(out)


def to_bytes(arg):
    return arg if isinstance(arg, bytes) else str(arg).encode()


class Reader:
    """Bytes in, replies out. feed() takes bytes, next() gives a reply or raises Incomplete."""

    def __init__(self, protocol=None):
        self.buffer = bytearray()
        self.protocol = protocol  # None: both are accepted
        self.last_raw = b""

    def feed(self, data):
        self.buffer += data

    def next(self):
        reply, end = self._parse(0, 0)
        self.last_raw = bytes(self.buffer[:end])
        del self.buffer[:end]
        return reply

    def _line(self, pos):
        end = self.buffer.find(b"\r\n", pos)
        if end < 0:
            if self.buffer.find(b"\n", pos) >= 0:
                raise ProtocolError(f"LF without CR in {bytes(self.buffer[pos:pos + 80])!r}")
            raise Incomplete
        line = bytes(self.buffer[pos:end])
        if b"\n" in line or b"\r" in line:
            raise ProtocolError(f"CR or LF inside a line: {line[:80]!r}")
        return line, end + 2

    @staticmethod
    def _number(text, lowest):
        digits = text[1:] if text[:1] == b"-" else text
        canonical = digits.isdigit() and (digits == b"0" or digits[:1] != b"0") and text != b"-0"
        if not canonical or int(text) < lowest:
            raise ProtocolError(f"not a length or number: {text[:40]!r}")
        return int(text)

    def _parse(self, pos, depth):
        if depth > 32:
            raise ProtocolError("nested too deeply")
        if pos >= len(self.buffer):
            raise Incomplete
        sign = self.buffer[pos:pos + 1]
        if self.protocol == 2 and sign in RESP3_ONLY:
            raise ProtocolError(f"RESP3 type {bytes(sign)!r} on a RESP2 connection")
        line, pos = self._line(pos + 1)
        if sign == b"+":
            return Reply("simple", line), pos
        if sign == b"-":
            return Reply("error", line), pos
        if sign == b":":
            return Reply("integer", self._number(line, -2**63)), pos
        if sign in (b"$", b"=", b"!"):
            return self._blob(sign, self._number(line, -1 if sign == b"$" else 0), pos)
        if sign in (b"*", b"~", b">", b"%", b"|"):
            return self._aggregate(sign, self._number(line, -1 if sign == b"*" else 0), pos, depth)
        return self._scalar(sign, line), pos

    def _blob(self, sign, size, pos):
        if size < 0:
            if self.protocol == 3:
                raise ProtocolError("a RESP2 null on a RESP3 connection")
            return Reply("null_bulk", None), pos
        if len(self.buffer) < pos + size + 2:
            raise Incomplete
        if self.buffer[pos + size:pos + size + 2] != b"\r\n":
            raise ProtocolError("a bulk string does not end with CR LF")
        raw = bytes(self.buffer[pos:pos + size])
        if sign == b"=" and raw[3:4] != b":":
            raise ProtocolError("a verbatim string without its format")
        kind = {b"$": "bulk", b"=": "verbatim", b"!": "error"}[bytes(sign)]
        return Reply(kind, raw), pos + size + 2

    def _aggregate(self, sign, size, pos, depth):
        if size < 0:
            if self.protocol == 3:
                raise ProtocolError("a RESP2 null array on a RESP3 connection")
            return Reply("null_array", None), pos
        items = []
        for _ in range(size * (2 if sign in (b"%", b"|") else 1)):
            item, pos = self._parse(pos, depth + 1)
            items.append(item)
        if sign == b"|":
            raise ProtocolError("an attribute, which redis-server never sends")
        if sign == b"%":
            return Reply("map", list(zip(items[::2], items[1::2]))), pos
        return Reply({b"*": "array", b"~": "set", b">": "push"}[bytes(sign)], items), pos

    @staticmethod
    def _scalar(sign, line):
        if sign == b"_" and not line:
            return Reply("null", None)
        if sign == b"#" and line in (b"t", b"f"):
            return Reply("boolean", line == b"t")
        if sign == b",":
            try:
                return Reply("double", float(line))
            except ValueError:
                raise ProtocolError(f"not a double: {line[:40]!r}") from None
        if sign == b"(" and line.lstrip(b"-").isdigit():
            return Reply("big_number", line)
        raise ProtocolError(f"not a reply: {bytes(sign) + line[:80]!r}")


class Client:
    """A connection. Pushes (RESP3), and on a RESP2 connection the messages of subscriptions, are kept apart from replies,
    in `pushes`. All waits end at a deadline with Timeout."""

    def __init__(self, port, host="127.0.0.1", timeout=REPLY_SECONDS, strict=True):
        self.timeout = timeout
        self.strict = strict
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = Reader(2 if strict else None)
        self.pushes = collections.deque()
        self.subscribed = {"": set(), "p": set(), "s": set()}
        self.monitoring = False
        self.closed = False

    def close(self):
        self.closed = True
        self.socket.close()

    def fileno(self):
        return self.socket.fileno()

    def set_protocol(self, protocol):
        """Says what the reader is to accept from now on (after HELLO or RESET)."""
        self.reader.protocol = protocol if self.strict else None

    def hello(self, protocol, *args):
        self.set_protocol(None)
        reply = self.command("HELLO", protocol, *args)
        if not reply.is_error():
            self.set_protocol(protocol)
        return reply

    def send_raw(self, data):
        try:
            self.socket.settimeout(self.timeout)
            self.socket.sendall(data)
        except socket.timeout:
            raise Timeout("the peer does not read") from None
        except OSError as error:
            raise Closed(str(error)) from None

    def send(self, *args):
        self.send_raw(encode(args))

    def read(self, timeout=None):
        """The next thing on the wire, push or not."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            if self.reader.buffer:
                try:
                    return self.reader.next()
                except Incomplete:
                    pass
            self._receive(deadline)

    def _receive(self, deadline):
        try:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.0001))
            data = self.socket.recv(1 << 18)
        except socket.timeout:
            raise Timeout("no reply before the deadline") from None
        except OSError as error:
            raise Closed(str(error)) from None
        if not data:
            raise Closed("closed by the peer")
        self.reader.feed(data)

    def is_message(self, reply):
        """Whether this came by itself: a message of a subscription, or a line of MONITOR."""
        if self.monitoring and reply.kind == "simple" and b" [" in reply.value:
            return True
        if reply.kind not in ("push", "array") or not reply.value:
            return False
        first = reply.value[0].value
        if reply.kind == "push":
            return first not in SUBSCRIPTION_KINDS
        return any(self.subscribed.values()) and MESSAGE_KINDS.get(first) == len(reply.value)

    def read_reply(self, timeout=None):
        """The next reply; messages that come before it are put into `pushes`."""
        while True:
            reply = self.read(timeout)
            if not self.is_message(reply):
                self._note_subscription(reply)
                return reply
            self.pushes.append(reply)

    def read_push(self, timeout=None):
        """The next message. A reply that comes instead is a protocol error."""
        return self.pushes.popleft() if self.pushes else self.read_push_from_wire(timeout)

    def read_push_from_wire(self, timeout=None):
        """The next message that has not been put aside yet."""
        reply = self.read(timeout)
        if not self.is_message(reply):
            raise ProtocolError(f"a reply where a message was awaited: {reply.text()}")
        return reply

    def _note_subscription(self, reply):
        if reply.kind not in ("push", "array") or len(reply.value) != 3 or reply.value[0].value not in SUBSCRIPTION_KINDS:
            return
        kind, name = reply.value[0].value.decode(), reply.value[1].value
        letter = kind[0] if kind[0] in "ps" and kind not in ("subscribe",) else ""
        if "un" in kind:
            self.subscribed[letter].discard(name)
        else:
            self.subscribed[letter].add(name)

    def command(self, *args, timeout=None):
        """Sends one command and gives its one reply."""
        self.send(*args)
        return self.read_reply(timeout)

    def pipeline(self, commands):
        """Sends all commands at once and gives their replies in order."""
        self.send_raw(b"".join(encode(c) for c in commands))
        return [self.read_reply() for _ in commands]
