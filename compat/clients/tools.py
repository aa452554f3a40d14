"""redis-cli and redis-benchmark as people use them at two URLs; compat/redis_cli.py compares all their modes with redis-server.

    python3 tools.py redis-cli|redis-benchmark NEAR-PORT FAR-PORT PROTOCOL
"""

import os
import re
import subprocess
import sys
import time

TOOL, NEAR, FAR, PROTOCOL = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4]
SECONDS = 20  # the longest that anything may take
DATABASE = "5"
PASSWORD = os.environ["COMPAT_PASSWORD"]
# redis-cli takes the password from here, so that it stands in no list of processes.
ENVIRONMENT = dict(os.environ, HOME="/nonexistent", REDISCLI_HISTFILE="/dev/null", REDISCLI_AUTH=PASSWORD)

counts = {True: 0, False: 0}


def check(what, good, detail=""):
    counts[bool(good)] += 1
    if not good:
        print(f"FAIL {what}: {detail}", flush=True)


def command_line(port, *args):
    return ["redis-cli", f"-{PROTOCOL}", "-p", port, "-n", DATABASE, *map(str, args)]


def cli(port, *args, stdin=b""):
    return subprocess.run(command_line(port, *args), input=stdin, capture_output=True, timeout=SECONDS, env=ENVIRONMENT).stdout


def eventually(ask):
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if ask():
            return True
        time.sleep(0.05)
    return False


class Subscriber:
    """A redis-cli that listens until it is ended."""

    def __init__(self, *args):
        self.process = subprocess.Popen(command_line(FAR, *args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=ENVIRONMENT)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.output = b""

    def has(self, text):
        def look():
            self.output += self.process.stdout.read() or b""
            return text in self.output
        return eventually(look)

    def end(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


def check_cli():
    cli(NEAR, "FLUSHDB")
    wrong = subprocess.run(["redis-cli", "-p", NEAR, "-a", "wrong", "PING"], capture_output=True, timeout=SECONDS, env=ENVIRONMENT)
    check("a wrong password is refused", b"WRONGPASS" in wrong.stdout + wrong.stderr, wrong)
    check("the database", f" db={DATABASE} ".encode() in cli(NEAR, "CLIENT", "INFO"))
    check("the protocol", f" resp={PROTOCOL}".encode() in cli(NEAR, "CLIENT", "INFO"))
    count = 2000
    piped = cli(NEAR, "--pipe", stdin=b"".join(b"SET piped:%d %d\r\n" % (number, number) for number in range(count)))
    check("--pipe", b"errors: 0, replies: %d" % count in piped, piped)
    check("what was piped", eventually(lambda: cli(FAR, "GET", f"piped:{count - 1}") == b"%d\n" % (count - 1)))
    megabyte = bytes(range(256)) * 4096
    cli(NEAR, "-x", "SET", "large", stdin=megabyte)
    check("a value of a megabyte", eventually(lambda: cli(FAR, "GET", "large") == megabyte + b"\n"))
    transaction = cli(NEAR, stdin=b"WATCH w\nMULTI\nINCR w\nHSET room a 1\nEXEC\n")
    check("a transaction", transaction == b"OK\nOK\nQUEUED\nQUEUED\n1\n1\n", transaction)
    check("a hash", eventually(lambda: cli(FAR, "HGETALL", "room").split() == [b"a", b"1"]))
    check("--scan", eventually(lambda: len(cli(FAR, "--scan", "--pattern", "piped:*").split()) == count))


def check_cli_messages():
    for port in (NEAR, FAR):
        cli(port, "CONFIG", "SET", "notify-keyspace-events", "AKE")
    channel, pattern, shard = Subscriber("SUBSCRIBE", "news"), Subscriber("PSUBSCRIBE", f"__keyevent@{DATABASE}__:*"), None
    shard = Subscriber("SSUBSCRIBE", "shard")
    check("SUBSCRIBE", channel.has(b"subscribe\nnews\n1\n"), channel.output)
    check("PSUBSCRIBE", pattern.has(b"psubscribe\n"), pattern.output)
    check("SSUBSCRIBE", shard.has(b"ssubscribe\nshard\n1\n"), shard.output)
    cli(NEAR, "-x", "PUBLISH", "news", stdin=bytes(range(256)))
    check("a message of every byte", channel.has(b"message\nnews\n" + bytes(range(256)) + b"\n"), channel.output)
    cli(NEAR, "SPUBLISH", "shard", "to the shard")
    check("a message to a shard", shard.has(b"smessage\nshard\nto the shard\n"), shard.output)
    cli(NEAR, "SET", "short", 1, "PX", 100_000)
    check("the event set", pattern.has(b":set\nshort\n"), pattern.output)
    # Only now is its end made near: a site which a key reaches after its time tells that it has expired and nothing else.
    cli(NEAR, "PEXPIRE", "short", 200)
    check("the event expired", pattern.has(b":expired\nshort\n"), pattern.output)
    for subscriber in (channel, pattern, shard):
        subscriber.end()


def check_benchmark():
    flags = ["-3"] if PROTOCOL == "3" else []
    for port in dict.fromkeys((NEAR, FAR)):
        for extra in (["-t", "ping,set,get,incr,hset,mset"], ["-t", "set,get,hset", "-P", "16", "-r", "1000"], ["-n", "500", "PUBLISH", "c", "m"]):
            command = ["redis-benchmark", "-p", port, "-a", PASSWORD, "--dbnum", DATABASE, "-q", "-n", "1000", *flags, *extra]
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, text=True, env=ENVIRONMENT)
            rates = re.findall(r": ([\d.]+) requests per second", done.stdout)
            check("redis-benchmark " + " ".join(extra), done.returncode == 0 and rates and "rror" not in done.stdout + done.stderr,
                  done.stdout[-500:] + done.stderr)


def main():
    if TOOL == "redis-cli":
        check_cli()
        check_cli_messages()
    else:
        check_benchmark()
    print(f"{counts[True]} passed, {counts[False]} failed", flush=True)
    return 1 if counts[False] else 0


if __name__ == "__main__":
    sys.exit(main())
