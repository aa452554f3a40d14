#!/usr/bin/env python3
"""Carries the IP packets between the sites of a chaos run, and mistreats them as it is told.

    router.py SEED FD...     each FD is the TUN device of a site: the first of 10.77.0.1, the second of 10.77.0.2, …

It obeys lines on stdin, and answers each with `done`:
    FROM TO pass DELAY_MS LOSS      packets from that site to that other one; LOSS is a share from 0 to 1
    FROM TO cut                     they are dropped without a word, as by a cable that is out
It ends with its stdin. Linux could do this by `tc netem`, but many a kernel is built without it; and a packet that a user's
process holds back is as late for TCP as any.
"""

import collections
import os
import random
import select
import sys
import time

PACKET_BYTES = 1 << 16
# Packets read from one device before the others have their turn.
TURN = 64
# A slow link holds so many packets; what comes then is dropped, as routers do.
QUEUE_PACKETS = 20_000
IPV4_DESTINATION = 16  # offset of the address in the header (RFC 791)


class Link:
    """One direction between two sites."""

    def __init__(self, target):
        self.target = target  # file descriptor
        self.cut, self.delay, self.loss = False, 0.0, 0.0
        self.waiting = collections.deque()  # (due, packet): never overtaken, also when the delay shrinks


class Router:
    def __init__(self, seed, devices):
        self.dice = random.Random(seed)
        self.devices = devices
        self.links = {(a, b): Link(devices[b]) for a in range(len(devices)) for b in range(len(devices)) if a != b}
        self.words = b""

    def receive(self, site):
        for _ in range(TURN):
            try:
                packet = os.read(self.devices[site], PACKET_BYTES)
            except BlockingIOError:
                return
            # Nothing but IPv4 between two sites: the kernel also sends IPv6 greetings of its own.
            if packet[0] >> 4 == 4:
                link = self.links.get((site, packet[IPV4_DESTINATION + 3] - 1))
                if link is not None:
                    self.carry(link, packet)

    def carry(self, link, packet):
        if link.cut or (link.loss and self.dice.random() < link.loss):
            return
        if not link.delay and not link.waiting:
            send(link.target, packet)
        elif len(link.waiting) < QUEUE_PACKETS:
            due = time.monotonic() + link.delay
            link.waiting.append((max(due, link.waiting[-1][0]) if link.waiting else due, packet))

    def deliver(self):
        """Sends what is due; the seconds until more is (None: nothing waits)."""
        now, soonest = time.monotonic(), None
        for link in self.links.values():
            while link.waiting and link.waiting[0][0] <= now:
                send(link.target, link.waiting.popleft()[1])
            if link.waiting:
                due = link.waiting[0][0] - now
                soonest = due if soonest is None else min(soonest, due)
        return soonest

    def obey(self):
        """False when nobody is there any more who could say anything."""
        data = os.read(0, 4096)
        *lines, self.words = (self.words + data).split(b"\n")
        for line in lines:
            a, b, word, *numbers = line.decode().split()
            link = self.links[int(a) - 1, int(b) - 1]
            link.cut = word == "cut"
            if link.cut:
                link.waiting.clear()
            else:
                link.delay, link.loss = float(numbers[0]) / 1000, float(numbers[1])
            os.write(1, b"done\n")
        return bool(data)

    def run(self):
        poll = select.poll()
        sources = {device: site for site, device in enumerate(self.devices)}
        for device in [0, *self.devices]:
            poll.register(device, select.POLLIN)
        while True:
            wait = self.deliver()
            for device, _ in poll.poll(None if wait is None else wait * 1000):
                if device in sources:
                    self.receive(sources[device])
                elif not self.obey():
                    return


def send(device, packet):
    try:
        os.write(device, packet)
    except OSError:
        pass  # the device's queue is full, or the site is gone: packets may be lost


if __name__ == "__main__":
    for number in map(int, sys.argv[2:]):
        os.set_blocking(number, False)
    Router(sys.argv[1], [int(number) for number in sys.argv[2:]]).run()
