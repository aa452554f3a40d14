#!/usr/bin/env python3
"""Runs real clients of Redis, and what applications build on them, at one site and across two linked ones, and holds the README's
table true.

    compat/clients.py [--server PATH] [--only TEXT] [--write]

At one site there is one server on sqlite:, across two each site has its own PostgreSQL and its own server: what is written and published
at one is read and received at the other. The server where things are received is killed and started again in each run. --only takes
the rows of the table whose names have this text; --write puts the table into the README instead of comparing it.

The programs are in compat/clients/. Installs npm's packages by the lock file there, and builds those in C++ and in Go with CMake.
"""

import filecmp
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

import servers
from checks import Checks
from certificates import Certificates
from pair import Pair

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = HERE / "clients"
README = HERE.parent / "README.md"
BUILD = HERE.parent / "build" / "clients"
BEGIN, END = "<!-- compat/clients.py: begin -->\n", "<!-- compat/clients.py: end -->\n"
PASSWORD = "client-secret"
RUN_SECONDS = 240
INSTALL_ATTEMPTS, INSTALL_PAUSE_SECONDS = 3, 20  # a registry does not always answer
CROWD = 500  # browsers at each of the two servers of an application
LAST_LINE = re.compile(r"^(\d+) passed, (\d+) failed$")
PLACES = ("one site", "two sites")
RESP2, BOTH = (2,), (2, 3)


class Program:
    """A row of the table: its name, the command line without ports and protocol, the protocols that it speaks."""

    def __init__(self, name, command, protocols, environment=(), places=PLACES, tls=False):
        self.name, self.command, self.protocols, self.places, self.tls = name, command, protocols, places, tls
        self.environment = dict(environment)

    def run(self, near, far, protocol, checks, place):
        """How many checks passed, or None if one failed. A line "!restart" of the program is obeyed and answered."""
        what = f"{self.name} in RESP{protocol}, {place}"
        process = subprocess.Popen(self.command + [str(near.port), str(far.port), str(protocol)], cwd=PROGRAMS, text=True, errors="replace",
                                   env={**os.environ, **self.environment, "COMPAT_PASSWORD": PASSWORD}, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=servers.end_with_parent)
        late = threading.Timer(RUN_SECONDS, process.kill)
        late.start()
        said, last = [], ""
        try:
            for line in process.stdout:
                last = line.rstrip("\n")
                if last == "!restart":
                    far.kill_and_restart()
                    process.stdin.write("restarted\n")
                    process.stdin.flush()
                else:
                    said.append(last)
            process.wait()
        finally:
            late.cancel()
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdin.close()
            process.stdout.close()
        match = LAST_LINE.match(last)
        passed, failed = map(int, match.groups()) if match else (0, 1)
        checks.count(passed, failed)
        good = failed == 0 and process.returncode == 0 and passed > 0
        if not good:
            print(f"FAIL {what}:\n  " + "\n  ".join(said[-40:]), flush=True)
            if failed == 0:
                checks.count(0, 1)
        return passed if good else None


def npm(name):
    """The version of an npm package that the lock file names."""
    return json.loads((PROGRAMS / "package-lock.json").read_text())["packages"][f"node_modules/{name}"]["version"]


def node(script, *arguments):
    return ["node", f"{script}.mjs", *arguments]


class TlsServer(servers.Server):
    """A server without a plain port: `port` is that for TLS, and clients must show a certificate."""

    def __init__(self, program, certificates, **options):
        self.certificates = certificates
        super().__init__(program, **options)

    def _arguments(self):
        args = super()._arguments()
        at = args.index("--port") + 1
        return args[:at] + ["off", "--tls-port"] + args[at:] + self.certificates.server_options()


def programs():
    listed = []
    for title, script, package in (("ioredis", "ioredis", "ioredis"), ("ioredis", "ioredis", "ioredis-5"), ("node-redis", "node_redis", "redis"),
                                   ("node-redis", "node_redis", "redis-5")):
        protocols = RESP2 if package == "ioredis-5" else BOTH
        listed.append(Program(f"{title} {npm(package)}", node(script), protocols, {"COMPAT_PACKAGE": package}))
    listed.append(Program(f"ioredis {npm('ioredis')} over TLS, with a client certificate", node("ioredis"), BOTH, places=PLACES[:1], tls=True))
    listed += [Program(f"redis-py {debian('python3-redis')}", ["/usr/bin/python3", "redis_py.py"], RESP2),
               Program(f"hiredis {debian('libhiredis-dev')}", [str(BUILD / "hiredis_client")], RESP2)]
    go_redis = f"go-redis {debian('golang-gopkg-redis.v5-dev')}"
    listed += [Program(go_redis, [str(BUILD / "go_redis"), "client"], RESP2),
               Program(f"ion's calls on {go_redis}", [str(BUILD / "go_redis"), "ion"], RESP2)]
    for tool in ("redis-cli", "redis-benchmark"):
        listed.append(Program(f"{tool} {debian('redis-tools')}", [sys.executable, "tools.py", tool], BOTH))
    adapter = npm("@socket.io/redis-adapter")
    for kind, package in (("classic", "ioredis"), ("classic", "redis"), ("sharded", "ioredis"), ("sharded", "redis")):
        title = (f"Socket.IO {npm('socket.io')}, {kind} Redis adapter {adapter}" + (" and emitter" if kind == "classic" else "") +
                 (" on ioredis" if package == "ioredis" else " on node-redis"))
        listed.append(Program(title, node("socketio"), BOTH, {"COMPAT_ADAPTER": kind, "COMPAT_CLIENT": package}))
    for kind in ("classic", "sharded"):
        title = f"Socket.IO {npm('socket.io')}, {kind} Redis adapter {adapter}, with {CROWD} clients at each server"
        listed.append(Program(title, node("socketio"), (3,),
                              {"COMPAT_ADAPTER": kind, "COMPAT_CLIENT": "redis", "COMPAT_BROWSERS": str(CROWD)}))
    listed.append(Program(f"graphql-redis-subscriptions {npm('graphql-redis-subscriptions')}", node("graphql"), BOTH))
    listed.append(Program("requests and replies as LiveKit's psrpc has them", node("psrpc"), BOTH))
    listed.append(Program("one channel for all, as ActionCable and Phoenix have it", node("cable"), BOTH))
    return listed


def debian(package):
    """The upstream version of an installed Debian package."""
    version = subprocess.run(["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True, check=True).stdout
    return re.sub(r"^\d+:|-[^-]*$", "", version)


def install():
    """npm's packages, unless they are those of the lock file already, and the programs that want a compiler."""
    lock, installed = PROGRAMS / "package-lock.json", PROGRAMS / "node_modules" / ".lock-of-this-folder"
    if not installed.exists() or not filecmp.cmp(lock, installed, shallow=False):
        for attempt in range(1, INSTALL_ATTEMPTS + 1):
            status = subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=PROGRAMS, check=False).returncode
            if status == 0:
                break
            if attempt == INSTALL_ATTEMPTS:
                sys.exit(f"npm ci failed {attempt} times, in the end with status {status}")
            print(f"npm ci failed with status {status}; again in {INSTALL_PAUSE_SECONDS} s", flush=True)
            time.sleep(INSTALL_PAUSE_SECONDS)
        shutil.copyfile(lock, installed)
    for step in (["-S", str(PROGRAMS), "-B", str(BUILD), "-DCMAKE_BUILD_TYPE=Release"], ["--build", str(BUILD)]):
        subprocess.run(["cmake", *step], check=True, stdout=subprocess.DEVNULL)


def table(results):
    """The lines of the README: results by (name, protocol, place)."""
    columns = [(protocol, place) for place in PLACES for protocol in BOTH]
    lines = ["| client or application | " + " | ".join(f"RESP{protocol}, {place}" for protocol, place in columns) + " |\n",
             "|---|" + "---|" * len(columns) + "\n"]
    for name in dict.fromkeys(name for name, _, _ in results):
        cells = []
        for protocol, place in columns:
            passed = results.get((name, protocol, place), "–")
            cells.append("failed" if passed is None else f"{passed} passed" if isinstance(passed, int) else passed)
        lines.append(f"| {name} | " + " | ".join(cells) + " |\n")
    return "".join(lines)


def in_readme():
    text = README.read_text()
    return text[text.index(BEGIN) + len(BEGIN):text.index(END)]


def write_readme(lines):
    text = README.read_text()
    README.write_text(text[:text.index(BEGIN) + len(BEGIN)] + lines + text[text.index(END):])


def run_at(place, near, far, chosen, checks, results):
    for program in chosen:
        for protocol in program.protocols:
            if place in program.places:
                results[program.name, protocol, place] = program.run(near, far, protocol, checks, place)
    for server in {near, far}:
        checks.check(f"the server lives, {place}", server.alive(), server.log_tail())
        checks.check(f"the log has no fault, {place}", not server.complaints(), server.complaints())


def run_all(server, chosen, checks):
    """Results by (name, protocol, place), in the order of the table."""
    results = {(program.name, protocol, place): None for program in chosen for place in program.places
               for protocol in program.protocols}
    kept = ["--appendonly", "yes", "--appendfsync", "always"] if server == "redis" else []
    plain = [program for program in chosen if not program.tls]
    with servers.Server(server, "sqlite:", password=PASSWORD, options=kept) as alone:
        run_at(PLACES[0], alone, alone, plain, checks, results)
    if server == "redis":
        return {key: result for key, result in results.items() if key[0] in {program.name for program in plain}}
    with Certificates() as certificates, TlsServer(server, certificates, backend="sqlite:", password=PASSWORD) as alone:
        os.environ["COMPAT_TLS"] = certificates.folder
        run_at(PLACES[0], alone, alone, [program for program in chosen if program.tls], checks, results)
        del os.environ["COMPAT_TLS"]
    pair = Pair(server, PASSWORD)
    try:
        if checks.check("the sites are linked", pair.is_linked(), pair.servers[0].log_tail() + pair.servers[1].log_tail()):
            run_at(PLACES[1], *pair.servers, plain, checks, results)
    finally:
        pair.stop()
    return results


def main():
    parser = servers.argument_parser(__doc__, backend=False)
    parser.add_argument("--only", default="", help="rows whose names have this text")
    parser.add_argument("--write", action="store_true", help="put the table into the README")
    options = parser.parse_args()
    checks = Checks()
    install()
    results = run_all(options.server, [program for program in programs() if options.only in program.name], checks)
    lines = table(results)
    print(lines, end="", flush=True)
    if options.write:
        write_readme(lines)
    elif not options.only and options.server != "redis":
        checks.check("the README's table says the same", in_readme() == lines, "compat/clients.py --write puts it there")
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
