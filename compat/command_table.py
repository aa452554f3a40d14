#!/usr/bin/env python3
"""Compares COMMAND INFO of every command we serve with redis-server's: name, arity, flags, first and last key, step, categories,
tips, key specifications. Compared are the commands that must be there (COMMANDS) and all else that ours lists by itself. Each of
them, subcommands too, must stand in a case of cases/*.txt.

Clients read these fields (cluster routing, argument checks), so all of them count; flags, categories and tips are sets.
"""

import sys

import compare
import differences
import normalise
import resp
import servers

COMMANDS = {
    "strings": "get set setnx setex psetex getset getdel getex mget mset msetnx append strlen getrange substr setrange incr decr "
               "incrby decrby incrbyfloat",
    "hashes": "hset hsetnx hmset hget hmget hgetall hdel hexists hlen hkeys hvals hstrlen hincrby hincrbyfloat hscan hrandfield",
    "keys": "del unlink exists type ttl pttl expire pexpire expireat pexpireat expiretime pexpiretime persist keys scan randomkey "
            "rename renamenx copy touch dbsize flushdb flushall swapdb move object",
    "pubsub": "subscribe unsubscribe psubscribe punsubscribe publish ssubscribe sunsubscribe spublish pubsub",
    "transactions": "multi exec discard watch unwatch",
    "server": "ping echo quit reset auth hello select client command info config time monitor slowlog latency memory debug "
              "lastsave save bgsave shutdown cluster",
    "subcommands": "object|encoding object|refcount object|idletime object|freq object|help pubsub|channels pubsub|numsub "
                   "pubsub|numpat pubsub|shardchannels pubsub|shardnumsub pubsub|help client|id client|getname client|setname "
                   "client|list client|info client|kill client|no-evict client|reply client|pause client|unpause "
                   "client|tracking client|help command|count command|info command|list command|docs command|getkeys "
                   "config|get config|set config|resetstat memory|usage latency|latest latency|history latency|reset "
                   "slowlog|get slowlog|len slowlog|reset cluster|info cluster|slots cluster|myid",
}
FIELDS = ("name", "arity", "flags", "first key", "last key", "step", "categories", "tips", "key specifications", "subcommands")
UNORDERED = ("flags", "categories", "tips")
# Commands of ours that redis-server 7.0 does not know, each with its name in differences.md.
MORE = {"client|setinfo": "client-setinfo", "client|no-touch": "client-setinfo"}


def entries(client, names):
    """{command: [its ten fields]} as COMMAND INFO gives them, None for a command that is not known."""
    replies = client.command("COMMAND", "INFO", *names)
    if replies.kind != "array" or len(replies.value) != len(names):
        raise SystemExit(f"FAIL COMMAND INFO of {len(names)} commands gives {replies.text()[:200]}")
    return {name: None if reply.value is None else reply.value for name, reply in zip(names, replies.value)}


def field_text(field, reply):
    return (normalise.simplify(reply, [("deepsort", None)]) if field in UNORDERED else reply).text()


def all_names(client):
    """The commands that must be there, and those that our server lists besides."""
    wanted = [name for group in COMMANDS.values() for name in group.split()]
    listed = client.command("COMMAND", "LIST").plain()
    if not isinstance(listed, list):
        raise SystemExit(f"FAIL COMMAND LIST gives {listed!r:.200}")
    return wanted + sorted({name.decode() for name in listed} - set(wanted))


def without_case(names, cases):
    """Those commands (a subcommand is "container|name") that are in no step of these cases."""
    shown = set()
    for case in cases:
        for step in case.steps:
            words = [word.lower() for word in (step.words or [])[:2] if isinstance(word, bytes)]
            # What is sent as it is may hold several commands, each on a line.
            raw = [word for word in step.words or [] if isinstance(word, bytes)] if step.option("raw") or step.option("wire") else []
            for line in [words] + [part.lower().split()[:2] for word in raw for part in word.split(b"\r\n")]:
                shown.add(b"|".join(line))
                shown.update(line[:1])
    return sorted(name for name in names if name.encode() not in shown)


def compare_entry(name, theirs, ours):
    """Lines that say what differs."""
    if name in MORE:
        return [] if theirs is None else [f"{name}: redis-server knows it: it is no difference"]
    if ours is None or theirs is None:
        return [] if ours is theirs else [f"{name}: {'ours' if ours is None else 'redis'} does not know it"]
    if len(ours) != len(theirs):
        return [f"{name}: {len(ours)} fields instead of {len(theirs)}"]
    found = []
    for field, a, b in zip(FIELDS, theirs, ours):
        if field == "subcommands":  # each of those that we serve is compared by itself
            continue
        if field_text(field, a) != field_text(field, b):
            found.append(f"{name}, {field}: redis {field_text(field, a)}, ours {field_text(field, b)}")
    return found


def main():
    options = servers.argument_parser(__doc__, backend=False).parse_args()
    passed, failed = 0, 0
    with servers.Server("redis") as reference, servers.Server(options.server) as ours:
        for protocol in (2, 3):
            clients = resp.Client(reference.port), resp.Client(ours.port)
            for client in clients:
                client.hello(protocol)
            names = all_names(clients[1])
            theirs, mine = (entries(client, names) for client in clients)
            for name in names:
                found = compare_entry(name, theirs[name], mine[name])
                passed, failed = passed + (not found), failed + bool(found)
                for line in found:
                    print(f"FAIL RESP{protocol} {line}")
    for name in without_case(names, compare.load(None)):
        print(f"FAIL {name} has no case")
        failed += 1
    unknown = sorted(set(MORE.values()) - set(differences.names()))
    for name in unknown:
        print(f"FAIL differences.md has no {name}")
    failed += len(unknown)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
