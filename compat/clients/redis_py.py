"""redis-py as Debian packages it, which speaks RESP2: the same as the other clients are asked in scenario.mjs, in Python.

    /usr/bin/python3 redis_py.py NEAR-PORT FAR-PORT PROTOCOL

It has no calls for sharded channels yet. See harness.mjs for what near and far are.
"""

import os
import sys
import time

import redis

NEAR, FAR = int(sys.argv[1]), int(sys.argv[2])
PASSWORD = os.environ["COMPAT_PASSWORD"]
DATABASE = 5
SECONDS = 20  # the longest that anything may take
EVERY_BYTE = bytes(range(256))
MEGABYTE = EVERY_BYTE * 4096

counts = {True: 0, False: 0}


def check(what, good, detail=""):
    counts[bool(good)] += 1
    if not good:
        print(f"FAIL {what}: {detail}", flush=True)


def equal(what, actual, expected):
    check(what, actual == expected, f"{actual!r} instead of {expected!r}")


def eventually(ask):
    """Asks until the answer is true and gives it; None at the deadline. A connection that is down is asked again."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            answer = ask()
        except redis.exceptions.ConnectionError:
            answer = None
        if answer:
            return answer
        time.sleep(0.01)
    return None


def connect(port, password=PASSWORD, name=None):
    return redis.Redis(port=port, password=password, db=DATABASE, client_name=name, socket_timeout=SECONDS)


def next_message(pubsub, fits):
    """The next message that fits; others are dropped. Connects again as an application does, by asking again."""
    def ask():
        message = pubsub.get_message(timeout=0.05)
        return message if message and fits(message) else None
    return eventually(ask)


def is_payload(payload):
    return lambda message: message["type"] in ("message", "pmessage") and message["data"] == payload


def subscribed(port, channels=(), patterns=()):
    """A subscriber whose subscriptions are acknowledged."""
    pubsub = connect(port, name="subscriber").pubsub()
    if channels:
        pubsub.subscribe(*channels)
    if patterns:
        pubsub.psubscribe(*patterns)
    for _ in range(len(channels) + len(patterns)):
        next_message(pubsub, lambda message: message["type"] in ("subscribe", "psubscribe"))
    return pubsub


def check_connecting(near):
    equal("the name", near.client_getname(), "writer")
    mine = next(client for client in near.client_list() if client["name"] == "writer")
    equal("the database", mine["db"], str(DATABASE))
    try:
        connect(NEAR, "wrong").ping()
        check("a wrong password is refused", False)
    except redis.exceptions.ResponseError as error:
        check("a wrong password is refused", "WRONGPASS" in str(error), error)
    near.flushdb()


def check_commands(near, far):
    pipeline = near.pipeline(transaction=False)
    for number in range(500):
        pipeline.set(f"p:{number}", f"v{number}").get(f"p:{number}")
    equal("a pipeline of 1,000 is answered in order", pipeline.execute(),
          [answer for number in range(500) for answer in (True, f"v{number}".encode())])
    near.set("stock", 3)
    equal("EXEC", near.pipeline().decr("stock").get("stock").execute(), [2, b"2"])
    with near.pipeline() as watching:
        watching.watch("stock")
        near.set("stock", 9)
        watching.multi()
        watching.decr("stock")
        try:
            watching.execute()
            check("EXEC after a change of a watched key", False)
        except redis.exceptions.WatchError:
            check("EXEC after a change of a watched key", True)
        watching.watch("stock")
        watching.multi()
        watching.decr("stock")
        equal("EXEC after none", watching.execute(), [8])
    near.hset("room", mapping={"name": "Room one", "seats": 12, "empty": ""})
    near.hincrby("room", "seats", 30)
    whole = {b"name": b"Room one", b"seats": b"42", b"empty": b""}
    check("a hash", eventually(lambda: far.hgetall("room") == whole), far.hgetall("room"))
    equal("a hash that is not there", far.hgetall("no-room"), {})
    equal("SCAN", len(list(near.scan_iter("p:*", count=100))), 500)


def check_events(near, far):
    for client in (near, far):
        client.config_set("notify-keyspace-events", "AKE")
    events = subscribed(FAR, patterns=[f"__keyspace@{DATABASE}__:lock"])
    check("SET NX", near.set("lock", 1, px=100_000, nx=True))
    check("the event set", next_message(events, is_payload(b"set")))
    # Only now is its end made near: a site which a key reaches after its time tells that it has expired and nothing else.
    near.pexpire("lock", 300)
    check("the event expired", next_message(events, is_payload(b"expired")))
    equal("an expired key", far.get("lock"), None)
    near.set("long", 1, ex=100)
    check("the time to live", eventually(lambda: 90 < far.ttl("long") <= 100))
    events.close()


def check_messages(near, far):
    pubsub = subscribed(FAR, ["news", b"\x00\xff"], ["pat:*"])
    for channel in ("news", "pat:one", b"\x00\xff"):
        near.publish(channel, b"first")
        message = next_message(pubsub, is_payload(b"first"))
        equal("a message's channel", message and message["channel"], channel if isinstance(channel, bytes) else channel.encode())
    pipeline = near.pipeline(transaction=False)
    for number in range(100):
        pipeline.publish("news", number)
    pipeline.execute()
    got = [next_message(pubsub, lambda message: message["type"] == "message") for _ in range(100)]
    equal("100 messages in order, each once", [int(message["data"]) for message in got if message], list(range(100)))
    for what, payload in (("every byte", EVERY_BYTE), ("a megabyte", MEGABYTE)):
        for channel in ("news", "pat:one"):
            near.publish(channel, payload)
            check(f"a message of {what}", next_message(pubsub, is_payload(payload)))
        near.set("bytes", payload)
        check(f"a value of {what}", eventually(lambda payload=payload: far.get("bytes") == payload))
    pubsub.unsubscribe(b"\x00\xff")
    check("UNSUBSCRIBE", next_message(pubsub, lambda message: message["type"] == "unsubscribe"))
    check("PING of a subscriber", pubsub.ping() is None and next_message(pubsub, lambda message: message["type"] == "pong"))
    return pubsub


def check_restart(near, far, pubsub):
    near.set("kept", "over the restart")
    eventually(lambda: far.get("kept"))
    print("!restart", flush=True)
    sys.stdin.readline()
    check("what was acknowledged is there after a kill", eventually(lambda: far.get("kept") == b"over the restart"))
    check("the name is told again", eventually(lambda: far.client_getname() == "reader"))
    for channel in ("news", "pat:one"):
        def heard(channel=channel):
            near.publish(channel, "again " + channel)
            message = pubsub.get_message(timeout=0.05)
            return message and message["data"] == b"again " + channel.encode()
        check(f"a message on {channel} after the restart", eventually(heard))


def main():
    near, far = connect(NEAR, name="writer"), connect(FAR, name="reader")
    check_connecting(near)
    check_commands(near, far)
    check_events(near, far)
    check_restart(near, far, check_messages(near, far))
    print(f"{counts[True]} passed, {counts[False]} failed", flush=True)
    return 1 if counts[False] else 0


if __name__ == "__main__":
    sys.exit(main())
