"""What goes wrong, in an order that the seed decides, and how long it takes until every server serves again."""

import asyncio
import dataclasses
import random
import shutil
import signal
import subprocess
import time

from clients import Broken, Connection, Unreachable, is_ok, resp

# kind: (weight, shortest and longest duration in seconds, what is done)
KINDS = {
    "kill": (4, 0.0, 1.0, "kill -9 of a server, started again"),
    "term": (2, 0.0, 0.5, "SIGTERM of a server, started again"),
    "stop": (3, 0.2, 6.0, "SIGSTOP of a server, SIGCONT"),
    "pg-immediate": (3, 0.0, 1.5, "pg_ctl stop -m immediate, start"),
    "pg-fast": (2, 0.0, 0.0, "pg_ctl restart -m fast"),
    "terminate": (4, 0.0, 0.0, "pg_terminate_backend of one kind of our sessions"),
    "cut": (3, 0.0, 3.0, "the network between a server and PostgreSQL is cut"),
    "stall": (2, 0.2, 5.0, "the network between a server and PostgreSQL stands still"),
}
STOP_SECONDS = 20.0      # SIGTERM or a fast stop may take so long
RECOVERY_SECONDS = 20.0  # without service for so long is a finding after any fault
HOPELESS = 3             # faults that service did not come back from: more say nothing new
PROBE_PAUSE = 0.01
LOGS = b"backend_available:1"
# What to ask the database when service does not come back.
DIAGNOSIS = (
    "SELECT * FROM isthmus.lease",
    "SELECT * FROM isthmus.server",
    "SELECT origin, count(*), min(seq), max(seq), min(arrived), max(arrived) FROM isthmus.log GROUP BY origin ORDER BY 5",
    "SELECT seq, origin, arrived, convert_from(key, 'UTF8'), requester FROM isthmus.log WHERE kind = 'lease' ORDER BY arrived",
    "SELECT pid, application_name, backend_type, state, wait_event, query_start, left(query, 60) FROM pg_stat_activity "
    "WHERE application_name LIKE 'isthmus%'",
    "SELECT slot_name, temporary, active, confirmed_flush_lsn FROM pg_replication_slots",
)


@dataclasses.dataclass
class Fault:
    """One thing that goes wrong, as the seed decided it."""
    number: int
    kind: str
    server: int         # whom it meets, where it meets one
    seconds: float      # how long it lasts
    choice: float       # among what is there at that moment, from 0 to 1
    wait: bool          # for all servers to serve again, before the next one
    gap: float          # seconds until the next one


def plan(seed, count, servers, mean_gap, kinds):
    """The faults, all decided before the first one. The last one is waited for."""
    dice = random.Random(f"{seed}/faults")
    weights = [KINDS[kind][0] for kind in kinds]
    faults = []
    for number in range(1, count + 1):
        kind = dice.choices(kinds, weights)[0]
        _, shortest, longest, _ = KINDS[kind]
        faults.append(Fault(number, kind, dice.randrange(servers), dice.uniform(shortest, longest), dice.random(),
                            dice.random() < 0.7 or number == count, dice.uniform(0.1, 2 * mean_gap - 0.1)))
    return faults


class Health:
    """Whether each server serves, seen by writes through it that never stop."""

    def __init__(self, world, doubts):
        self.world, self.doubts = world, doubts
        self.trouble_ended = {server.name: None for server in world.servers}
        self.waiting = []  # (server's name, since when, future)

    async def probe(self, server):
        """Writes all the time; every success that began after the last trouble ends the doubt about this server, once it says that
        its own session with the database is back too: a write may have been done by the other server."""
        connection = Connection(self.world, server)
        number = 0
        while True:
            number += 1
            began = time.monotonic()
            try:
                if is_ok(await connection.command("SET", f"probe:{server.name}", number)):
                    self.good(server.name, began, time.monotonic())
                    await self.end_doubt(server.name, began, connection)
            except (Broken, Unreachable):
                pass
            await asyncio.sleep(PROBE_PAUSE)

    async def end_doubt(self, name, began, connection):
        ended = self.trouble_ended[name]
        if ended is None or began < ended:
            return
        told = await connection.command("INFO", "isthmus")
        if LOGS in told.value and self.trouble_ended[name] == ended:
            self.doubts.end(name, time.monotonic())
            self.trouble_ended[name] = None

    def good(self, name, began, now):
        for entry in list(self.waiting):
            if entry[0] == name and began >= entry[1]:
                self.waiting.remove(entry)
                if not entry[2].done():
                    entry[2].set_result(now)

    def trouble(self):
        """Something is about to go wrong."""
        for server in self.world.servers:
            self.doubts.begin(server.name, time.monotonic())
            self.trouble_ended[server.name] = None

    def mended(self):
        for name in self.trouble_ended:
            self.trouble_ended[name] = time.monotonic()

    async def back(self, name, since):
        """Seconds from `since` to the first reply to a write that was sent later; None if none comes."""
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((name, since, future))
        try:
            return await asyncio.wait_for(future, RECOVERY_SECONDS) - since
        except asyncio.TimeoutError:
            return None

    async def all_back(self, since):
        """{server: seconds or None}"""
        names = [server.name for server in self.world.servers]
        return dict(zip(names, await asyncio.gather(*(self.back(name, since) for name in names))))


class Faults:
    """Does to a site what a plan says."""

    def __init__(self, world, cluster, proxies, health, say):
        self.world, self.cluster, self.proxies, self.health, self.say = world, cluster, proxies, health, say
        self.findings = world.findings
        self.recoveries = []  # (kind, slowest server's seconds, None if none): of faults that were waited for

    async def run(self, faults):
        """All of them; the recovery {server: seconds} after the last one."""
        back = {}
        for fault in faults:
            self.health.trouble()
            what = await getattr(self, fault.kind.replace("-", "_"))(fault)
            since = time.monotonic()
            self.health.mended()
            if fault.wait:
                back = await self.health.all_back(since)
                self.note(fault, what, back)
                if sum(seconds is None for _, seconds in self.recoveries) == HOPELESS:
                    self.say("Service does not come back; the other faults are left out")
                    break
            else:
                self.say(f"{fault.number:4} {fault.kind:13}{what}; the next one comes before all is well")
            await asyncio.sleep(fault.gap)
        return back

    def note(self, fault, what, back):
        missing = [name for name, seconds in back.items() if seconds is None]
        if missing:
            self.findings.add("service", f"fault {fault.number} ({fault.kind}): no service at {', '.join(missing)} for "
                                         f"{RECOVERY_SECONDS:.0f} s")
            self.diagnose(fault.number)
        self.recoveries.append((fault.kind, None if missing else max(back.values())))
        times = ", ".join(f"{name} {'never' if s is None else f'{s:.2f} s'}" for name, s in back.items())
        self.say(f"{fault.number:4} {fault.kind:13}{what}; back: {times}")

    def diagnose(self, number):
        """Writes down what the servers and the database say while service does not come back."""
        with open(self.world.servers[0].log.parent / f"diagnosis-{number}.txt", "w", encoding="utf-8") as out:
            for server in self.world.servers:
                try:
                    client = resp.Client(server.port, timeout=2)
                    reply = client.command("INFO").value.decode(errors="replace")
                    client.close()
                except (resp.Closed, resp.Timeout, OSError) as error:
                    reply = f"{type(error).__name__}: {error}"
                out.write(f"== INFO of {server.name}\n{reply}\n")
                if shutil.which("gdb"):
                    stacks = subprocess.run(["gdb", "-p", str(server.process.pid), "-batch", "-ex", "thread apply all bt 16"],
                                            capture_output=True, text=True, check=False)
                    out.write(f"== stacks of {server.name}\n{stacks.stdout}\n")
            for statement in DIAGNOSIS:
                try:
                    rows = self.cluster.sql(statement).replace("\x1f", " | ")
                except RuntimeError as error:
                    rows = str(error)
                out.write(f"== {statement}\n{rows}\n")

    async def kill(self, fault):
        server = self.world.servers[fault.server]
        self.world.doubts.killed(server.name, time.monotonic())
        await self.end(server, signal.SIGKILL)
        await asyncio.sleep(fault.seconds)
        server.launch()
        return server.name

    async def term(self, fault):
        server = self.world.servers[fault.server]
        self.world.doubts.killed(server.name, time.monotonic())
        status = await self.end(server, signal.SIGTERM)
        if status != 0:
            self.findings.add("processes", f"{server.name} ended with status {status} after SIGTERM")
        await asyncio.sleep(fault.seconds)
        server.launch()
        return server.name

    async def end(self, server, number):
        """Its exit status; None if it had to be killed."""
        server.signal(number)
        try:
            return await asyncio.wait_for(asyncio.to_thread(server.process.wait, STOP_SECONDS + 1), STOP_SECONDS)
        except (asyncio.TimeoutError, TimeoutError):
            server.signal(signal.SIGKILL)
            await asyncio.to_thread(server.process.wait)
            return None

    async def stop(self, fault):
        server = self.world.servers[fault.server]
        server.signal(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        server.signal(signal.SIGCONT)
        return f"{server.name} for {fault.seconds:.1f} s"

    async def pg_immediate(self, fault):
        await self.stop_database("immediate")
        await asyncio.sleep(fault.seconds)
        await self.start_database()
        return f"away for {fault.seconds:.1f} s"

    async def pg_fast(self, fault):
        del fault
        seconds = await self.stop_database("fast")
        await self.start_database()
        return f"stopped in {seconds:.2f} s"

    async def stop_database(self, mode):
        began = time.monotonic()
        self.cluster.request_stop(mode)
        try:
            await asyncio.wait_for(asyncio.to_thread(self.cluster.process.wait, STOP_SECONDS + 1), STOP_SECONDS)
        except (asyncio.TimeoutError, TimeoutError):
            self.findings.add("processes", f"PostgreSQL did not stop ({mode}) within {STOP_SECONDS:.0f} s")
            self.cluster.request_stop("immediate")
            await asyncio.to_thread(self.cluster.process.wait)
        return time.monotonic() - began

    async def start_database(self):
        self.cluster.launch()
        while not await asyncio.to_thread(self.cluster.is_ready):
            if self.cluster.process.poll() is not None:
                raise RuntimeError("PostgreSQL does not start:\n" + self.cluster.log_tail())
            await asyncio.sleep(0.02)

    async def terminate(self, fault):
        kinds = await asyncio.to_thread(
            self.cluster.rows, "SELECT DISTINCT application_name, backend_type FROM pg_stat_activity "
                               "WHERE application_name LIKE 'isthmus%' ORDER BY 1, 2")
        if not kinds:
            return "nobody was there"
        name, kind = kinds[int(fault.choice * len(kinds))]
        ended = await asyncio.to_thread(
            self.cluster.rows, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                               f"WHERE application_name = '{name}' AND backend_type = '{kind}'")
        return f"{len(ended)} × {name} ({kind})"

    async def cut(self, fault):
        return await self.meddle("cut", fault)

    async def stall(self, fault):
        return await self.meddle("stall", fault)

    async def meddle(self, word, fault):
        self.proxies[fault.server].tell(word)
        await asyncio.sleep(fault.seconds)
        self.proxies[fault.server].tell("pass")
        return f"{self.world.servers[fault.server].name} for {fault.seconds:.1f} s"


async def watch(world):
    """Restarts servers that end by themselves: before they were ready without a word, as a supervisor would; else it is a
    finding."""
    while True:
        for server in world.servers:
            if server.ended_by_itself():
                status = server.process.returncode
                if status != 1 or server.was_ready():
                    world.findings.add("processes", f"{server.name} ended by itself with status {status}")
                server.launch()
        await asyncio.sleep(0.1)
