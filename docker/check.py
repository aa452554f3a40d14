#!/usr/bin/env python3
"""Runs the compose files of this folder and checks what they promise, from outside, as clients do.

    docker/check.py --image NAME [--only one-server|two-sites]

One server: it serves, as a user without rights on a read-only root file system; its state outlives the container; it ends in order when it
is told to. Two sites: a smoke test at both, the WAN cut and healed, a server drained under load. Needs a Docker engine
with Compose; docker/test sees to that. Ends with `N passed, N failed`.
"""

import argparse
import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent / "compat"))

import resp  # noqa: E402  (the path is set above)

UP_SECONDS = 240
# For what takes milliseconds to seconds on a machine that has nothing else to do.
PATIENCE_SECONDS = 60
STOP_SECONDS = 30
SITES = {"amsterdam": ["isthmus-amsterdam-1", "isthmus-amsterdam-2"], "berlin": ["isthmus-berlin-1", "isthmus-berlin-2"]}


def free_ports(count):
    """So many TCP ports of the loopback that nobody listens on just now."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def eventually(done, seconds=PATIENCE_SECONDS):
    """Asks again and again until `done` says something true; False if that takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        if found := done():
            return found
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)


class Client(resp.Client):
    """A connection to a published port, by TLS if there is a context for it."""

    def __init__(self, port, tls=None):
        super().__init__(port, timeout=30.0)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")

    def ask(self, *words):
        """The reply without types. Raises resp.ProtocolError for an error."""
        reply = self.command(*words)
        if reply.is_error():
            raise resp.ProtocolError(reply.text())
        return reply.plain()

    def info(self, section):
        lines = self.ask("INFO", section).decode().split("\r\n")
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def state(self):
        """All strings and hashes of database 0."""
        found = {}
        for key in self.ask("KEYS", "*"):
            if self.ask("TYPE", key) == b"hash":
                flat = self.ask("HGETALL", key)
                found[key] = dict(zip(flat[::2], flat[1::2]))
            else:
                found[key] = self.ask("GET", key)
        return found


class Compose:
    """A compose file under a project name of its own."""

    def __init__(self, file, image, variables):
        self.file, self.project = file, f"isthmus-test-{os.getpid()}"
        name, _, tag = image.rpartition(":")
        if name != "isthmus":
            raise SystemExit("The image must have the name isthmus and a tag")
        self.environment = {**os.environ, "ISTHMUS_TAG": tag, **{name: str(value) for name, value in variables.items()}}

    def run(self, *words, check=True):
        done = subprocess.run(["docker", "compose", "-p", self.project, "-f", self.file, *words], env=self.environment,
                              capture_output=True, text=True)
        if check and done.returncode != 0:
            raise RuntimeError(f"docker compose {' '.join(words)}: {(done.stdout + done.stderr)[-3000:]}")
        return done.stdout + done.stderr

    def up(self):
        self.run("up", "--no-build", "--detach", "--wait", "--wait-timeout", str(UP_SECONDS))

    def down(self, *words):
        self.run("down", "--timeout", str(STOP_SECONDS), *words, check=False)

    def container(self, service):
        return f"{self.project}-{service}-1"

    def docker(self, *words, check=True):
        done = subprocess.run(["docker", *words], capture_output=True, text=True)
        if check and done.returncode != 0:
            raise RuntimeError(f"docker {' '.join(words)}: {done.stderr}")
        return done

    def inspect(self, service):
        return json.loads(self.docker("inspect", self.container(service)).stdout)[0]

    def log(self, service):
        return self.run("logs", "--no-log-prefix", service)

    def stop(self, service):
        """SIGTERM; the exit code."""
        self.docker("stop", "--time", str(STOP_SECONDS), self.container(service))
        return self.inspect(service)["State"]["ExitCode"]


class Counter(threading.Thread):
    """Counts at one server until told to stop, or until the connection ends."""

    def __init__(self, client, key):
        super().__init__(daemon=True)
        self.client, self.key, self.stopping = client, key, threading.Event()
        self.acknowledged, self.longest, self.error = 0, 0.0, None

    def run(self):
        while not self.stopping.is_set():
            begin = time.monotonic()
            try:
                self.client.ask("INCR", self.key)
            except (resp.Closed, resp.Timeout, resp.ProtocolError) as error:
                self.error = str(error)
                return
            self.acknowledged += 1
            self.longest = max(self.longest, time.monotonic() - begin)

    def end(self):
        self.stopping.set()
        self.join(PATIENCE_SECONDS)


class Checks:
    """Counts what holds and what does not."""

    def __init__(self):
        self.passed = self.failed = 0

    def __call__(self, name, holds, why=""):
        self.passed, self.failed = self.passed + bool(holds), self.failed + (not holds)
        print(f"{'ok' if holds else 'FAILED'}: {name}{f' ({why})' if why else ''}", flush=True)


def check_container(check, compose, service):
    """What every container of a server promises."""
    container = compose.container(service)
    check("it runs as a user without rights", compose.docker("exec", container, "id", "-u").stdout.strip() == "65532")
    check("its root file system is read-only",
          "Read-only" in compose.docker("exec", container, "touch", "/usr/x", check=False).stderr)
    check("Docker finds it healthy", compose.inspect(service)["State"]["Health"]["Status"] == "healthy")


def one_server(check, image):
    port, http = free_ports(2)
    compose = Compose(HERE / "compose.yaml", image, {"REDIS_PORT": port, "HTTP_PORT": http})
    try:
        compose.up()
        check("one server comes up", True)
        check_container(check, compose, "isthmus")
        client, subscriber, counter = Client(port), Client(port), Counter(Client(port), "count")
        check("it takes writes", client.ask("SET", "greeting", "hello") == b"OK")
        check("it answers reads", client.ask("GET", "greeting") == b"hello")
        subscriber.ask("SUBSCRIBE", "news")
        check("it delivers messages", client.ask("PUBLISH", "news", "x") == 1 and subscriber.read_push().plain()[2] == b"x")
        counter.start()
        eventually(lambda: counter.acknowledged > 100)
        check("told to end, it ends with code 0", compose.stop("isthmus") == 0)
        counter.end()
        check("it committed what it had", "Everything is in the log" in compose.log("isthmus"))
        compose.down()
        compose.up()
        client = Client(port)
        check("its state outlives the container", client.ask("GET", "greeting") == b"hello")
        count = int(client.ask("GET", "count"))
        check("nothing acknowledged is lost", counter.acknowledged <= count <= counter.acknowledged + 1,
              f"{counter.acknowledged} acknowledged, {count} there")
    except (RuntimeError, OSError, resp.Closed, resp.Timeout, resp.ProtocolError) as error:
        check("the run comes to its end", False, f"{error}\n{compose.log('isthmus')[-3000:]}")
    finally:
        compose.down("--volumes")


class TwoSites:
    """The compose file of two sites, and clients for it."""

    def __init__(self, check, image):
        self.check = check
        services = [service for servers in SITES.values() for service in servers]
        self.ports = dict(zip(services, free_ports(len(services))))
        variables = {f"{service.removeprefix('isthmus-').replace('-', '_').upper()}_PORT": port for service, port in self.ports.items()}
        self.compose = Compose(HERE / "two-sites.compose.yaml", image, variables)
        self.tls = None

    def client(self, service):
        return Client(self.ports[service], self.tls)

    def run(self):
        try:
            self.compose.up()
            self.check("two sites come up", True)
            check_container(self.check, self.compose, "isthmus-berlin-2")
            self.trust()
            self.smoke()
            self.cut_and_heal()
            self.drain()
        except (RuntimeError, OSError, resp.Closed, resp.Timeout, resp.ProtocolError) as error:
            self.check("the run comes to its end", False, f"{error}\n{self.compose.run('logs', '--tail', '20', check=False)}")
        finally:
            self.compose.down("--volumes")

    def trust(self):
        """The servers' authority, and that nothing else is spoken or believed."""
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "ca.crt"
            self.compose.docker("cp", f"{self.compose.container('isthmus-berlin-1')}:/certificates/ca.crt", str(file))
            self.tls = ssl.create_default_context(cafile=str(file))
        try:
            Client(self.ports["isthmus-berlin-1"], ssl.create_default_context())
            self.check("a client that does not trust the authority is not served", False)
        except ssl.SSLCertVerificationError:
            self.check("a client that does not trust the authority is not served", True)
        try:
            Client(self.ports["isthmus-berlin-1"]).ask("PING")
            self.check("a client without TLS is not served", False)
        except (resp.Closed, resp.ProtocolError):
            self.check("a client without TLS is not served", True)

    def links_up(self, site):
        sites = self.client(SITES[site][0]).ask("ISTHMUS", "SITES")
        facts = [dict(zip(flat[::2], flat[1::2])) for flat in sites[1:]]
        return bool(facts) and all(peer[b"state"] == b"up" for peer in facts)

    def await_links(self):
        begin = time.monotonic()
        up = all(eventually(lambda site=site: self.links_up(site)) for site in SITES)
        self.check("the links are up", up, f"after {time.monotonic() - begin:.1f} s")

    def smoke(self):
        """Each server's writes, messages and events reach all others."""
        self.await_links()
        clients = {service: self.client(service) for service in self.ports}
        listeners = {service: self.client(service) for service in self.ports}
        for service, listener in listeners.items():
            clients[service].ask("CONFIG", "SET", "notify-keyspace-events", "KA")
            listener.ask("SUBSCRIBE", "news")
            listener.ask("PSUBSCRIBE", "__keyspace@0__:from:*")
        for service, client in clients.items():
            client.ask("SET", f"from:{service}", service)
            client.ask("PUBLISH", "news", service)
        wanted = {service.encode() for service in clients}
        self.check("what each server writes is read at all",
                   eventually(lambda: all({client.ask("GET", f"from:{service}") for service in clients} == wanted for client in clients.values())))
        told = {service: self.messages(listener, 2 * len(clients)) for service, listener in listeners.items()}
        self.check("what each server publishes is heard at all", all({text for kind, text in found if kind == b"message"} == wanted
                                                                     for found in told.values()))
        self.check("keyspace events of each server are heard at all",
                   all({name.removeprefix(b"__keyspace@0__:from:") for kind, name in found if kind == b"pmessage"} == wanted
                       for found in told.values()))

    @staticmethod
    def messages(listener, count):
        """The next messages: (kind, payload) of those of a channel, (kind, channel) of those of a pattern."""
        found = []
        try:
            while len(found) < count:
                words = listener.read_push().plain()
                found.append((words[0], words[2]))
        except resp.Timeout:
            pass
        return found

    def wan(self, *words):
        """Takes all of Berlin off the WAN, or puts it back under its names."""
        for service in ["postgres-berlin", *SITES["berlin"]]:
            names = ["--alias", service] if words[0] == "connect" else []
            self.compose.docker("network", *words, *names, f"{self.compose.project}_wan", self.compose.container(service))

    def cut_and_heal(self):
        self.wan("disconnect")
        for site, (one, other) in SITES.items():
            client, elsewhere = self.client(one), self.client(other)
            listener = self.client(other)
            listener.ask("SUBSCRIBE", "local")
            for number in range(50):
                client.ask("SET", f"{site}:{number}", number)
                client.ask("INCR", "visits")
            client.ask("HSET", "room", site, "open", "last", site)
            self.check(f"{site} takes writes while the WAN is cut",
                       eventually(lambda: elsewhere.ask("GET", f"{site}:49") == b"49"))
            client.ask("PUBLISH", "local", site)
            self.check(f"{site} delivers messages", listener.read_push().plain()[2] == site.encode())
        self.check("neither site has the other's writes", self.client("isthmus-berlin-1").ask("EXISTS", "amsterdam:0") == 0
                   and self.client("isthmus-amsterdam-1").ask("EXISTS", "berlin:0") == 0)
        self.check("both sites say that the link is down",
                   eventually(lambda: not any(self.links_up(site) for site in SITES)))
        begin = time.monotonic()
        self.wan("connect")
        equal = eventually(lambda: self.client("isthmus-amsterdam-1").ask("GET", "visits") == b"100" and self.all_equal())
        self.check("all servers are equal when it is healed", equal, f"after {time.monotonic() - begin:.1f} s")
        state = self.client("isthmus-berlin-2").state()
        self.check("counters have added up and hashes are merged",
                   state.get(b"visits") == b"100" and state.get(b"room", {}).keys() == {b"amsterdam", b"berlin", b"last"})
        self.await_links()

    def all_equal(self):
        states = [self.client(service).state() for service in self.ports]
        return all(state == states[0] for state in states)

    def drain(self):
        """The writer of Amsterdam is told to end, under load at the other servers."""
        roles = {service: self.client(service).info("site")["site_role"] for service in SITES["amsterdam"]}
        leaving = next(service for service, role in roles.items() if role == "writer")
        staying = [service for service in self.ports if service != leaving]
        counters = {service: Counter(self.client(service), f"count:{service}") for service in self.ports}
        for counter in counters.values():
            counter.start()
        eventually(lambda: all(counter.acknowledged > 50 for counter in counters.values()))
        self.check("the writer, told to end, ends with code 0", self.compose.stop(leaving) == 0)
        before = {service: counters[service].acknowledged for service in staying}
        self.check("the others go on", eventually(lambda: all(counters[service].acknowledged > before[service] + 50 for service in staying)))
        for counter in counters.values():
            counter.end()
        errors = [f"{service}: {counters[service].error}" for service in staying if counters[service].error]
        longest = max(counters[service].longest for service in staying)
        self.check("no client of another server saw an error", not errors, "; ".join(errors) or f"longest write {longest * 1000:.0f} ms")
        self.compose.docker("start", self.compose.container(leaving))
        self.check("the server is back", eventually(lambda: self.compose.inspect(leaving)["State"]["Health"]["Status"] == "healthy"))
        self.check("all servers are equal", eventually(self.all_equal))
        state = self.client(leaving).state()
        lost = [service for service, counter in counters.items()
                if not counter.acknowledged <= int(state[f"count:{service}".encode()]) <= counter.acknowledged + 1]
        self.check("nothing acknowledged is lost or counted twice", not lost, ", ".join(lost))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True, metavar="NAME", help="the server's image, isthmus:TAG")
    parser.add_argument("--only", choices=["one-server", "two-sites"])
    given = parser.parse_args()
    check = Checks()
    if given.only != "two-sites":
        print("-- One server")
        one_server(check, given.image)
    if given.only != "one-server":
        print("-- Two sites")
        TwoSites(check, given.image).run()
    print(f"{check.passed} passed, {check.failed} failed")
    return 0 if check.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
