"""Says when two answers are the same. Types and values must agree exactly, except where a case (or a command by its nature)
allows an order or a value to vary."""

import re

from resp import AGGREGATES, Reply

# What a command's answers allow to vary on any two servers, whatever the case says. Tolerances are in the answer's unit. Those of
# lifetimes are for a machine that stands still for seconds: the lifetimes in the cases are at least 10 s apart. Where a deadline
# was given as a point in time, and so is the same on both servers, a case says `!near(0)`.
BY_COMMAND = {
    b"KEYS": [("sort", None)],
    b"SMEMBERS": [("sort", None)],
    b"SINTER": [("sort", None)],
    b"SUNION": [("sort", None)],
    b"SDIFF": [("sort", None)],
    b"TTL": [("near", "8")],
    b"PTTL": [("near", "8000")],
    b"EXPIRETIME": [("near", "8")],
    b"PEXPIRETIME": [("near", "8000")],
    b"TIME": [("types", None)],
}
MONITOR_LINE = re.compile(rb"^\d+\.\d{6} \[(\d+) [^\]]+\] ")
CLIENT_FIELD_VARIES = {
    b"id", b"addr", b"laddr", b"fd", b"age", b"idle", b"qbuf", b"qbuf-free", b"argv-mem", b"multi-mem", b"rbs", b"rbp", b"obl",
    b"oll", b"omem", b"tot-mem", b"events"
}


def same(reference, ours, normalisers):
    """Whether two lists of replies are the same under the normalisers [(name, argument)]."""
    if len(reference) != len(ours):
        return False
    if any(name == "unordered" for name, _ in normalisers):
        reference, ours = sorted(reference, key=Reply.text), sorted(ours, key=Reply.text)
    tolerance = next((int(a) for n, a in normalisers if n == "near"), 0)
    return all(
        _same_reply(simplify(a, normalisers), simplify(b, normalisers), tolerance) for a, b in zip(reference, ours))


def _same_reply(a, b, tolerance):
    if a.kind != b.kind:
        return False
    if a.kind == "integer" and None not in (a.value, b.value):
        if a.value < 0 or b.value < 0:
            return a.value == b.value
        return abs(a.value - b.value) <= tolerance
    if a.kind in AGGREGATES:
        return len(a.value) == len(b.value) and all(_same_reply(x, y, tolerance) for x, y in zip(a.value, b.value))
    if a.kind == "map":
        return len(a.value) == len(b.value) and all(
            _same_reply(x[0], y[0], tolerance) and _same_reply(x[1], y[1], tolerance) for x, y in zip(a.value, b.value))
    return a.value == b.value


def simplify(reply, normalisers):
    """The reply with what may vary taken out."""
    if reply.kind == "simple" and MONITOR_LINE.match(reply.value):
        reply = Reply("simple", MONITOR_LINE.sub(rb"<time> [\1 <addr>] ", reply.value))
    for name, argument in normalisers:
        function = FUNCTIONS.get(name)
        if function is not None:
            reply = function(reply, argument)
    return reply


def _sort(reply, _):
    if reply.kind in AGGREGATES:
        return Reply(reply.kind, sorted(reply.value, key=Reply.text))
    if reply.kind == "map":
        return Reply(reply.kind, sorted(reply.value, key=lambda pair: pair[0].text()))
    return reply


def value_of(kind, text, fields, members):
    """What a key holds, of the answers to GET, HGETALL and SMEMBERS, in one order."""
    if kind.value == b"hash":
        return _pairs(fields, None)
    return _sort(members, None) if kind.value == b"set" else text


def _pairs(reply, _):
    """Sorts a list of pairs: flat, as RESP2 has it, or each in an array of its own, as in RESP3."""
    if reply.kind == "array" and all(item.kind == "array" for item in reply.value):
        return _sort(reply, None)
    if reply.kind == "array" and len(reply.value) % 2 == 0:
        pairs = sorted(zip(reply.value[::2], reply.value[1::2]), key=lambda pair: pair[0].text())
        return Reply(reply.kind, [item for pair in pairs for item in pair])
    return _sort(reply, None)


def _deep_sort(reply, _):
    if reply.kind in AGGREGATES:
        return Reply(reply.kind, sorted((_deep_sort(item, None) for item in reply.value), key=Reply.text))
    if reply.kind == "map":
        return Reply(reply.kind, sorted(((k, _deep_sort(v, None)) for k, v in reply.value), key=lambda p: p[0].text()))
    return reply


def _scan(reply, _):
    """The answer to SCAN: whether it is finished, and its items in any order."""
    if reply.kind != "array" or len(reply.value) != 2:
        return reply
    cursor = b"0" if reply.value[0].value == b"0" else b"<more>"
    return Reply("array", [Reply(reply.value[0].kind, cursor), _sort(reply.value[1], None)])


def _types(reply, _):
    """Only the types, down to the leaves."""
    if reply.kind in AGGREGATES:
        return Reply(reply.kind, [_types(item, None) for item in reply.value])
    if reply.kind == "map":
        return Reply(reply.kind, [(k, _types(v, None)) for k, v in reply.value])
    return Reply(reply.kind, None)


def _any(reply, _):
    """Only the outermost type."""
    return Reply(reply.kind, [] if reply.kind in AGGREGATES or reply.kind == "map" else None)


def _length(reply, _):
    """The outermost type and how much is in it."""
    return Reply(reply.kind, [Reply("integer", len(reply.value))]) if reply.kind in AGGREGATES else _any(reply, None)


def texts_of(reply):
    """All texts in a reply, joined by line ends."""
    if reply.kind in AGGREGATES:
        return b"\n".join(texts_of(item) for item in reply.value)
    if reply.kind == "map":
        return b"\n".join(texts_of(k) + b"\n" + texts_of(v) for k, v in reply.value)
    return reply.value if isinstance(reply.value, bytes) else str(reply.value).encode()


def _has(reply, argument):
    """The outermost type, and which of the texts (separated by commas) are in it."""
    text = texts_of(reply)
    found = [Reply("bulk", wanted + (b" is there" if wanted in text else b" is missing"))
             for wanted in argument.encode().split(b",")]
    return Reply("array", [_any(reply, None)] + found)


def _sub(reply, argument):
    """Replaces regular expression by text: !sub(regex,text)."""
    pattern, _, replacement = argument.rpartition(",")
    if reply.kind in AGGREGATES:
        return Reply(reply.kind, [_sub(item, argument) for item in reply.value])
    if isinstance(reply.value, bytes):
        return Reply(reply.kind, re.sub(pattern.encode(), replacement.encode(), reply.value))
    return reply


def _number(reply, _):
    """Any non-negative number is as good as another."""
    if reply.kind == "integer" and reply.value >= 0:
        return Reply("integer", 0)
    if reply.kind == "bulk" and re.fullmatch(rb"\d+(\.\d+)?", reply.value):
        return Reply("bulk", b"<number>")
    if reply.kind in AGGREGATES:
        return Reply(reply.kind, [_number(item, None) for item in reply.value])
    if reply.kind == "map":
        return Reply(reply.kind, [(k, _number(v, None)) for k, v in reply.value])
    return reply


def _client(reply, _):
    """Lines of CLIENT LIST or INFO: the fields in their order, and those values that do not vary."""
    if not isinstance(reply.value, bytes):
        return reply

    def field(text):
        name, sign, value = text.partition(b"=")
        if reply.kind == "verbatim":
            name = name.removeprefix(b"txt:")
        return name + sign + (b"*" if name in CLIENT_FIELD_VARIES else value)

    # The fields that came with Redis 7.2 have a case of their own.
    lines = [b" ".join(field(f) for f in line.split(b" ") if not f.startswith((b"lib-name=", b"lib-ver=")))
             for line in reply.value.split(b"\n")]
    return Reply(reply.kind, b"\n".join(lines))


def _word(reply, _):
    """The first word of an error."""
    return Reply("error", reply.value.split(b" ")[0]) if reply.is_error() else reply


FUNCTIONS = {
    "sort": _sort, "pairs": _pairs, "deepsort": _deep_sort, "scan": _scan, "types": _types, "any": _any, "length": _length,
    "has": _has, "sub": _sub, "number": _number, "client": _client, "word": _word,
    "save": lambda reply, _: Reply(reply.kind, None),
}
# Names that a case may use and that are not functions on a reply.
OTHERS = {"near", "unordered", "until", "noreply", "raw", "wire", "differs", "scanall", "times", "ordered"}
