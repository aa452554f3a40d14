#!/usr/bin/env python3
"""Checks of import_redis.py that need no server but two small ones of this script's own.

    tools/import_redis_test.py       prints what fails; ends with `N passed, N failed`
"""

import pathlib
import socketserver
import subprocess
import sys
import threading

TOOL = pathlib.Path(__file__).resolve().with_name("import_redis.py")
SECONDS = 60
# Each has a password with a character that has a meaning in URLs, or a port that is none.
BROKEN_URLS = ["redis://:hu#sh@host", "redis://:hu/sh@host", "redis://:hu?sh@host", "redis://:hu[sh@host", "redis://:hush@host:99999",
               "redis://user:12#hush@host", "redis://user:12/hush@host", ":hu#sh@host", "redis://:hush@host:port"]
# {database: {key: value}}; a target has databases up to 15.
SOURCE = {0: {b"a": b"1"}, 16: {b"hidden": b"2"}, 17: {b"k%d" % i: b"3" for i in range(7)}}


class Redis(socketserver.StreamRequestHandler):
    """As much of Redis as the tool asks for. The server has `keys` and `databases`."""

    def handle(self):
        db = 0
        while line := self.rfile.readline():
            words = [self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2] for _ in range(int(line[1:]))]
            if words[0] == b"SELECT":
                db = int(words[1]) if int(words[1]) < self.server.databases else db
            self.wfile.write(self.answer(words, db))

    def answer(self, words, db):
        keys = self.server.keys.setdefault(db, {})
        if words[0] == b"SELECT":
            return b"+OK\r\n" if int(words[1]) < self.server.databases else b"-ERR DB index is out of range\r\n"
        if words[0] == b"INFO":
            return bulk(b"".join(b"db%d:keys=%d,expires=0,avg_ttl=0\r\n" % (number, len(held)) for number, held in self.server.keys.items()))
        if words[0] == b"SCAN":
            return b"*2\r\n" + bulk(b"0") + b"*%d\r\n" % len(keys) + b"".join(map(bulk, keys))
        if words[0] == b"DUMP":
            return bulk(b"\x00" + keys[words[1]])
        if words[0] == b"PTTL":
            return b":-1\r\n"
        if words[0] == b"RESTORE":
            keys[words[1]] = words[3][1:]
            return b"+OK\r\n"
        return b"-ERR unknown command\r\n"


def bulk(data):
    return b"$%d\r\n%b\r\n" % (len(data), data)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, databases, keys):
        super().__init__(("127.0.0.1", 0), Redis)
        self.databases, self.keys = databases, keys
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.server_address[1]}"


def run(*options):
    return subprocess.run([sys.executable, TOOL, *options], capture_output=True, timeout=SECONDS, text=True)


def check_broken_url(url):
    done = run(url)
    said = done.stdout + done.stderr
    assert done.returncode == 2, (done.returncode, said)
    assert "Traceback" not in said and "%XX" in said and "sh" not in said, said
    assert done.stderr.count("\n") == 2, said


def check_escaped_password():
    with Server(16, {}) as server:
        done = run(f"redis://:hu%23sh@127.0.0.1:{server.server_address[1]}")
    assert done.returncode == 2 and "AUTH: ERR unknown command" in done.stderr, done.stderr


def check_databases_above_15():
    with Server(20, SOURCE) as source, Server(16, {}) as target:
        done = run(source.url, "--into", target.url)
        assert done.returncode == 1, done.stdout + done.stderr
        assert target.keys[0] == SOURCE[0] and not set(target.keys) & {16, 17}, target.keys
    assert "1 key copied" in done.stdout and "8 keys left" in done.stdout, done.stdout
    assert "1 in database 16, which the target does not have: hidden" in done.stdout, done.stdout
    assert "7 in database 17, which the target does not have: k0, k1, k2, k3, k4, ..." in done.stdout, done.stdout


def main():
    checks = [(check_broken_url, url) for url in BROKEN_URLS] + [(check_escaped_password,), (check_databases_above_15,)]
    failed = 0
    for check, *arguments in checks:
        try:
            check(*arguments)
        except AssertionError as error:
            print(f"FAILED: {check.__name__} {' '.join(arguments)}: {error}")
            failed += 1
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
