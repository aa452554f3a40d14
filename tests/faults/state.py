"""The whole state as a server shows it to a client, and as SQL shows it, in one form that can be compared."""

from clients import Broken, Connection

SCAN_COUNT = 1000
READERS = {b"hash": "HGETALL", b"set": "SMEMBERS"}
# isthmus.current has one row for each string, each field and each member.
CURRENT = ("SELECT db, key, type, field, value, round(extract(epoch FROM expire_at) * 1000)::bigint FROM isthmus.current "
           "WHERE db = 0")


async def of_server(world, server):
    """{key: (type, value, {field: value} or {member: None}, deadline or None)}, all texts. Raises Broken or Unreachable."""
    connection = Connection(world, server)
    state, cursor = {}, b"0"
    while True:
        reply = await connection.command("SCAN", cursor, "COUNT", SCAN_COUNT)
        if reply.is_error():
            raise Broken
        cursor, keys = reply.plain()
        if keys:
            await read_keys(connection, keys, state)
        if cursor == b"0":
            break
    connection.close()
    return state


async def read_keys(connection, keys, state):
    kinds = [reply.value for reply in await connection.pipeline(*(("TYPE", key) for key in keys))]
    commands = []
    for key, kind in zip(keys, kinds):
        commands += [(READERS.get(kind, "GET"), key), ("PEXPIRETIME", key)]
    replies = await connection.pipeline(*commands)
    for key, kind, value, deadline in zip(keys, kinds, replies[::2], replies[1::2]):
        if kind == b"none" or value.plain() is None:
            continue  # it expired meanwhile
        text = [part.decode() for part in value.plain()] if kind in READERS else value.plain().decode()
        if kind == b"hash":
            text = dict(zip(text[::2], text[1::2]))
        elif kind == b"set":
            text = dict.fromkeys(text)
        state[key.decode()] = (kind.decode(), text, deadline.value if deadline.value >= 0 else None)


def of_sql(cluster):
    """The same by isthmus.current."""
    state = {}
    for _, key, kind, field, value, deadline in cluster.rows(CURRENT):
        key, field = map(readable, (key, field))
        value = None if kind == "set" else readable(value)
        deadline = int(deadline) if deadline else None
        if kind in ("hash", "set"):
            state.setdefault(key, (kind, {}, deadline))[1][field] = value
        else:
            state[key] = (kind, value, deadline)
    return state


def readable(text):
    """bytea as psql prints it, or a text."""
    return bytes.fromhex(text[2:]).decode() if text.startswith("\\x") else text


def difference(name, state, other_name, other, limit=5):
    """What differs, for a person; empty if nothing does."""
    wrong = [key for key in sorted(state.keys() | other.keys()) if state.get(key) != other.get(key)]
    if not wrong:
        return ""
    shown = "; ".join(f"{key}: {state.get(key, 'absent')} / {other.get(key, 'absent')}" for key in wrong[:limit])
    return f"{name} and {other_name} differ in {len(wrong)} keys of {len(state)} / {len(other)}: {shown}"
