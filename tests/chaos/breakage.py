"""What goes wrong in a chaos run, in an order that the seed decides."""

import asyncio
import contextlib
import dataclasses
import random
import signal
import time

from clients import Broken, Connection, Unreachable, is_ok
from workload import WATCH_PAUSE, read_reach

# kind: (weight, shortest and longest duration in seconds, what is done). Those with weight 0 have places of their own in the plan.
KINDS = {
    "kill": (4, 0.0, 2.0, "kill -9 of a server, started again"),
    "stop": (3, 0.3, 8.0, "SIGSTOP of a server, SIGCONT"),
    "pg-kill": (4, 0.0, 3.0, "pg_ctl stop -m immediate of a site's PostgreSQL, start"),
    "isolate": (4, 0.5, 15.0, "a site is cut off from all others"),
    "one-way": (4, 0.5, 12.0, "one direction between two sites is cut"),
    "split": (1, 1.0, 10.0, "every site is cut off from every other"),
    "slow": (4, 2.0, 12.0, "20 to 150 ms and up to 3 % of loss on all ways of a site, or between two"),
    "most": (1, 1.0, 6.0, "60 % of the sites, or all but one, lose servers and PostgreSQL"),
    "clock-server": (2, 2.0, 12.0, "the clock of a server is up to 4 s wrong"),
    "clock-site": (2, 2.0, 12.0, "the clocks of a site are up to 4 s wrong"),
    "slot": (2, 0.0, 0.0, "the slot that a site keeps for another is dropped"),
    "copy": (0, 0.0, 0.0, "PostgreSQL of a site is stopped, copied and started"),
    "restore": (0, 0.0, 0.0, "that site's servers and PostgreSQL are killed and the copy is put in its place"),
    "join": (0, 0.0, 0.0, "a new, empty site joins"),
}
CLOCK_KINDS = ("clock-server", "clock-site")
# Alone, when all that went before is well again.
EXCLUSIVE = ("copy", "restore", "join")
# Where in the plan, as shares of it; in a long plan again and again.
PLACES = (("copy", 0.15), ("join", 0.35), ("restore", 0.55))
LONG_PLAN = 60
MAX_CLOCK_SECONDS = 4.0    # below --max-clock-skew (5 s)
RECOVERY_SECONDS = 20.0    # a site that does not serve for so long after its own fault is a finding
SETTLE_SECONDS = 30.0      # so is a link that does not come back
COPY_SECONDS = 12.0        # for the state of one site, which a new site copies one after the other while all share a machine
FRESH_SECONDS = 2.0        # a link works when a server has what its peer wrote so long ago
UNDER_WAY_SECONDS = 1.5    # what a killed site had sent has arrived
QUIET_SECONDS = 5.0        # without a new gap or copy of a site's state: the last copy has been made


@dataclasses.dataclass
class Fault:
    """One thing that goes wrong, as the seed decided it."""
    number: int
    kind: str
    site: int          # place in the list of sites, as are the others
    other: int
    seconds: float     # how long it lasts
    choice: float      # among what else there is to choose, from 0 to 1
    wait: bool         # until it is over, before the next one
    gap: float         # seconds until the next one


def plan(seed, count, sites, mean_gap, kinds):
    """The faults, all decided before the first one."""
    dice = random.Random(f"{seed}/faults")
    ordinary = [kind for kind in kinds if KINDS[kind][0]]
    chosen = dice.choices(ordinary, [KINDS[kind][0] for kind in ordinary], k=count) if ordinary else []
    restored = dice.randrange(sites)
    rounds = max(1, count // (LONG_PLAN if ordinary else len(PLACES)))
    special = [((turn + share) * count / rounds, kind) for kind, share in PLACES if kind in kinds and count
               for turn in range(1 if kind == "join" else rounds)]
    for already, (place, kind) in enumerate(sorted(special)):
        chosen.insert(int(place) + already, kind)
    faults = []
    for number, kind in enumerate(chosen, 1):
        _, shortest, longest, _ = KINDS[kind]
        site = restored if kind in ("copy", "restore") else dice.randrange(sites)
        if kind == "restore":
            restored = (restored + 1) % sites
        other = (site + 1 + dice.randrange(sites - 1)) % sites
        faults.append(Fault(number, kind, site, other, dice.uniform(shortest, longest), dice.random(), dice.random() < 0.4,
                            dice.uniform(0.1, 2 * mean_gap - 0.1)))
    return faults


class Breakage:
    """Does to sites what a plan says. `joiner`: the site that is not there yet, and `welcome(site)` starts its clients."""

    def __init__(self, world, network, excuses, say, welcome, joiner=None):
        self.world, self.network, self.excuses, self.say = world, network, excuses, say
        self.welcome, self.joiner = welcome, joiner
        self.sites = [site for site in world.sites if site is not joiner]  # those that are there
        self.counts = {}
        self.hopeless = False
        self.watches = set()  # tasks that see how a fault ends while others happen

    async def run(self, faults):
        running = set()
        for fault in faults:
            if fault.kind in EXCLUSIVE:
                await gather(running)
                await self.settle(f"before fault {fault.number}")
            if self.hopeless:
                self.say("Links do not come back; the other faults are left out")
                break
            task = asyncio.create_task(self.play(fault))
            running.add(task)
            task.add_done_callback(running.discard)
            if fault.wait or fault.kind in EXCLUSIVE:
                await asyncio.wait([task])
            await asyncio.sleep(fault.gap)
        await gather(running)
        await gather(self.watches)

    async def play(self, fault):
        began = time.monotonic()
        what = await getattr(self, fault.kind.replace("-", "_"))(fault)
        self.counts[fault.kind] = self.counts.get(fault.kind, 0) + 1
        self.say(f"{fault.number:4} {self.world.findings.time_text(began)} {fault.kind:13}{what}; "
                 f"{time.monotonic() - began:.1f} s")

    # ---- health ----

    def lags(self):
        """{(site, server): seconds} by which servers are behind what sites wrote, where that is too much."""
        now, late = time.monotonic(), {}
        for site in self.sites:
            for server in (server for other in self.sites for server in other.servers):
                seen = self.world.reach.seen[site.name, server.name]
                lag = now - self.world.reach.time_of(site.name, seen[-1][1] if seen else 0)
                if lag > FRESH_SECONDS:
                    late[site.name, server.name] = lag
        return late

    async def settle(self, when, patience=SETTLE_SECONDS):
        """Waits until every server has everything of every site."""
        deadline = time.monotonic() + patience
        while late := self.lags():
            if time.monotonic() > deadline:
                worst = ", ".join(f"{server} {lag:.0f} s behind {site}" for (site, server), lag in sorted(late.items()))
                self.world.findings.add("service", f"{when} links did not come back in {patience:.0f} s: {worst}")
                self.hopeless = True
                return
            await asyncio.sleep(WATCH_PAUSE)

    @contextlib.asynccontextmanager
    async def trouble(self, *sites):
        """These sites' own servers or databases fail meanwhile. Afterwards waits until they serve."""
        sites = sorted(sites, key=lambda site: site.number)  # all take locks in this order
        for site in sites:
            await site.lock.acquire()
            self.world.trouble[site.name].begin(time.monotonic())
        try:
            yield
        finally:
            for site in sites:
                self.world.trouble[site.name].end(time.monotonic())
                site.lock.release()
        for site in sites:
            try:
                await asyncio.wait_for(self.world.trouble[site.name].passed(), RECOVERY_SECONDS)
            except (asyncio.TimeoutError, TimeoutError):
                self.world.findings.add("service", f"{site.name} does not serve {RECOVERY_SECONDS:.0f} s after its fault was over, "
                                                   f"at {self.world.findings.time_text(time.monotonic())}")

    # ---- processes ----

    async def kill(self, fault):
        site = self.sites[fault.site]
        server = site.servers[int(fault.choice * len(site.servers))]
        async with self.trouble(site):
            # What PostgreSQL could not take while it was away is gone with the server.
            self.excuses.lossy(site.name, None, *self.away(site))
            server.signal(signal.SIGKILL)
            await asyncio.to_thread(server.process.wait)
            await asyncio.sleep(fault.seconds)
            server.launch()
        return server.name

    def away(self, site):
        """When its database was away last: from then on messages were acknowledged that only its own servers had."""
        spans = [span for span in site.away if time.monotonic() - span[1] < 20]
        return (spans[0][0], spans[-1][1]) if spans else (0.0, 0.0)

    async def stop(self, fault):
        site = self.sites[fault.site]
        server = site.servers[int(fault.choice * len(site.servers))]
        async with self.trouble(site):
            server.signal(signal.SIGSTOP)
            await asyncio.sleep(fault.seconds)
            server.signal(signal.SIGCONT)
        return server.name

    async def pg_kill(self, fault):
        site = self.sites[fault.site]
        async with self.trouble(site):
            began = time.monotonic()
            await site.stop_database("immediate")
            await asyncio.sleep(fault.seconds)
            seconds = await site.start_database()
            site.away.append((began, time.monotonic() + RECOVERY_SECONDS))
        return f"{site.name}, away for {fault.seconds:.1f} s, started in {seconds:.1f} s"

    async def most(self, fault):
        others = [site for site in self.sites if site is not self.sites[fault.site]]
        sites = others if fault.choice < 0.5 else others[:max(1, len(self.sites) * 3 // 5)]
        async with self.trouble(*sites):
            for site in sites:
                self.excuses.lossy(site.name, None, *self.away(site))
                await site.kill_servers()
                await site.stop_database("immediate")
            await asyncio.sleep(fault.seconds)
            for site in sites:
                await site.start_database()
                site.launch_servers()
        left = [site.name for site in self.sites if site not in sites]
        return f"only {', '.join(left)} left for {fault.seconds:.1f} s"

    # ---- the network ----

    def around(self, site):
        """Both directions of every way of a site."""
        return [pair for pair in self.network.pairs() if site.number in pair]

    async def isolate(self, fault):
        site = self.sites[fault.site]
        with self.network.cut(self.around(site)):
            await asyncio.sleep(fault.seconds)
        return site.name

    async def one_way(self, fault):
        site, other = self.sites[fault.site], self.sites[fault.other]
        with self.network.cut([(site.number, other.number)]):
            await asyncio.sleep(fault.seconds)
        return f"{site.name} to {other.name}"

    async def split(self, fault):
        with self.network.cut(self.network.pairs()):
            await asyncio.sleep(fault.seconds)
        return "all"

    async def slow(self, fault):
        site, other = self.sites[fault.site], self.sites[fault.other]
        pairs, name = self.around(site), site.name
        if fault.choice > 0.5:
            pairs, name = [(site.number, other.number), (other.number, site.number)], f"{site.name} and {other.name}"
        delay, loss = 20 + 130 * (fault.choice * 10 % 1), 0.03 * (fault.choice * 100 % 1)
        with self.network.slowed(pairs, round(delay), loss):
            await asyncio.sleep(fault.seconds)
        return f"{name}, {delay:.0f} ms, {loss:.1%} lost"

    # ---- clocks ----

    async def clock_server(self, fault):
        site = self.sites[fault.site]
        return await self.wrong(fault, site, [site.clocks[1 + int(fault.choice * len(site.servers))]])

    async def clock_site(self, fault):
        return await self.wrong(fault, self.sites[fault.site], self.sites[fault.site].clocks)

    async def wrong(self, fault, site, clocks):
        offset = (2 * (fault.choice * 10 % 1) - 1) * MAX_CLOCK_SECONDS
        async with site.clock_lock:
            for clock in clocks:
                clock.set(offset)
            await asyncio.sleep(fault.seconds)
            for clock in clocks:
                clock.set(0.0)
        return f"{site.name} {offset:+.1f} s"

    # ---- links and databases ----

    async def slot(self, fault):
        """The slot at `site` through which `other` receives."""
        site, other = self.sites[fault.site], self.sites[fault.other]
        began = time.monotonic()
        first, second = sorted((site, other), key=lambda site: site.number)
        async with first.lock, second.lock:
            receiver = int((await asyncio.to_thread(other.cluster.sql, "SELECT id FROM isthmus.site")).strip())
            dropped = await asyncio.to_thread(drop_slots, site.cluster, f"isthmus_link_{receiver:x}_")
        dropped_at = time.monotonic()
        deadline = dropped_at + SETTLE_SECONDS + RECOVERY_SECONDS
        while any(self.since(site, server) < dropped_at for server in other.servers) and time.monotonic() < deadline:
            await asyncio.sleep(WATCH_PAUSE)
        self.excuses.lossy(site.name, other.name, began - FRESH_SECONDS, time.monotonic() + FRESH_SECONDS)
        self.world.reach.copied(other.name, began, time.monotonic() + FRESH_SECONDS)
        return f"{dropped} at {site.name} for {other.name}"

    def since(self, site, server):
        seen = self.world.reach.seen[site.name, server.name]
        return self.world.reach.time_of(site.name, seen[-1][1] if seen else 0)

    async def copy(self, fault):
        site = self.sites[fault.site]
        async with self.trouble(site):
            began = time.monotonic()
            if not await site.stop_database("fast"):
                self.world.findings.add("processes", f"PostgreSQL of {site.name} did not stop (fast)")
            await asyncio.to_thread(site.make_copy)
            site.copied_at = began
            await site.start_database()
            site.away.append((began, time.monotonic() + RECOVERY_SECONDS))
        return site.name

    async def restore(self, fault):
        site = self.sites[fault.site]
        if site.copy is None:
            return f"{site.name} has no copy"
        # Versions that a wrong clock made have been overtaken by the time.
        await asyncio.sleep(MAX_CLOCK_SECONDS + 1)
        mark = f"~mark:{site.name}:{fault.number}"
        began = time.monotonic()
        async with self.trouble(site):
            await self.write(site, mark)
            await asyncio.sleep(WATCH_PAUSE)
            killed = time.monotonic()
            await site.kill_servers()
            await site.stop_database("immediate")
            await asyncio.sleep(UNDER_WAY_SECONDS)
            reached = await self.reached_others(site)
            bound = max(site.copied_at, self.world.reach.time_of(site.name, reached))
            self.world.roll_back(site.name, bound)
            self.world.restored[site.name] = float("inf")
            age = killed - site.copied_at
            await asyncio.to_thread(site.put_copy_back)
            await site.start_database()
            site.launch_servers()
        took = await self.await_mark(site, mark)
        now = time.monotonic()
        self.world.restored[site.name] = now + FRESH_SECONDS
        for a, b in ((site.name, None), (None, site.name)):
            self.excuses.lossy(a, b, min(site.copied_at, began), now + FRESH_SECONDS)
        # Also the others copy its state, and when all its rows are back all compare theirs once more.
        self.watches.add(asyncio.create_task(self.watch_copies(began, site)))
        return f"{site.name}, {age:.0f} s old; its last {max(0.0, killed - bound):.2f} s were nowhere else; whole again after " \
               f"{'no time' if took is None else f'{took:.1f} s'}"

    async def watch_copies(self, began, site):
        """Until the last copy of a site's state that began with a fault of that site. While one of its links is down, one is to come."""
        last, changed_at = None, time.monotonic()
        while time.monotonic() - changed_at < QUIET_SECONDS:
            copies, linked = await self.copies(site)
            if copies != last or not linked:
                last, changed_at = copies, time.monotonic()
            await asyncio.sleep(WATCH_PAUSE)
        self.world.reach.copied(None, began, changed_at + FRESH_SECONDS)

    async def copies(self, site):
        """What all servers say of the copies that they make and have made, and of the gaps after which they copy once more; and whether
        a server of the site says that all its links are up."""
        said, linked = [], False
        for server in (server for other in self.sites for server in other.servers):
            connection = Connection(self.world, server)
            with contextlib.suppress(Broken, Unreachable):
                lines = (await connection.command("INFO", "sites")).plain().decode().splitlines()
                said += [(server.name, line.partition(",")[0]) for line in lines if line.startswith(("reseeds:", "gaps_")) or "state=seeding" in line]
                states = [line for line in lines if "state=" in line]
                linked |= server in site.servers and all("state=up" in line for line in states)
            connection.close()
        return said, linked

    async def write(self, site, key):
        connection = Connection(self.world, site.servers[0])
        with contextlib.suppress(Broken, Unreachable):
            if not is_ok(await connection.command("SET", key, "x")):
                self.world.findings.add("service", f"{site.name} did not take the mark")
        connection.close()

    async def reached_others(self, site):
        """The highest number of a site that has reached any other."""
        highest = 0
        for server in (server for other in self.sites if other is not site for server in other.servers):
            connection = Connection(self.world, server)
            with contextlib.suppress(Broken, Unreachable):
                highest = max(highest, (await read_reach(self.world, server, connection))[site.name])
            connection.close()
        return highest

    async def await_mark(self, site, mark):
        """Seconds until the site has back what others had seen of it; None if that never comes."""
        began = time.monotonic()
        connection = Connection(self.world, site.servers[0])
        while time.monotonic() - began < SETTLE_SECONDS:
            with contextlib.suppress(Broken, Unreachable):
                if (await connection.command("GET", mark)).plain() == b"x":
                    connection.close()
                    return time.monotonic() - began
            await asyncio.sleep(WATCH_PAUSE)
        self.world.findings.add("writes", f"{site.name} does not get back what other sites had seen of it before its database was "
                                          f"put back ({mark})")
        return None

    async def join(self, fault):
        del fault
        if self.joiner is None:
            return "nobody is left"
        site, self.joiner = self.joiner, None
        began = time.monotonic()
        async with self.trouble(site):
            await site.start_database()
            site.launch_servers()
            self.sites.append(site)
            self.welcome(site)
        await self.settle(f"after the join of {site.name}", max(SETTLE_SECONDS, COPY_SECONDS * (len(self.sites) - 1)))
        self.world.whole.add(site.name)
        for a, b in ((None, site.name), (site.name, None)):
            self.excuses.lossy(a, b, began, time.monotonic() + FRESH_SECONDS)
        self.world.reach.copied(None, began, time.monotonic() + FRESH_SECONDS)
        return site.name


def drop_slots(cluster, prefix):
    """Drops the slots of that prefix, also those in use; how many."""
    dropped = 0
    where = f"FROM pg_replication_slots WHERE starts_with(slot_name, '{prefix}')"
    for _ in range(200):
        if not cluster.rows(f"SELECT slot_name {where}"):
            return dropped
        cluster.sql(f"SELECT pg_terminate_backend(active_pid) {where} AND active_pid IS NOT NULL")
        try:
            dropped += len(cluster.rows(f"SELECT pg_drop_replication_slot(slot_name) {where} AND active_pid IS NULL"))
        except RuntimeError:
            pass  # somebody took it in between
    return dropped


async def gather(tasks):
    """Waits for all, and raises what one of them raised."""
    while tasks:
        done, _ = await asyncio.wait(set(tasks))
        tasks -= done
        for task in done:
            task.result()
