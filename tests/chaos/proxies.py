#!/usr/bin/env python3
"""Stands between the sites of a chaos run where there are no network namespaces: a TCP proxy for each site's way to each other
site's PostgreSQL.

    proxies.py SEED FROM:TO:PORT...    PORT is that of TO's PostgreSQL; prints the port for each on a line, in that order

It obeys the lines that router.py obeys, and answers them likewise. A cut holds all bytes of one direction back, as TCP would send
them again later; a loss costs a chunk the time after which TCP would send it again.
"""

import asyncio
import os
import random
import socket
import sys

CHUNK_BYTES = 1 << 16
RESEND_SECONDS = 0.2  # the least time-out of Linux's TCP
WAITING_CHUNKS = 256


class Direction:
    """What happens to bytes from one site to another."""

    def __init__(self):
        self.passing = asyncio.Event()
        self.passing.set()
        self.delay = self.loss = 0.0


class Proxies:
    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.directions = {}

    def direction(self, a, b):
        return self.directions.setdefault((a, b), Direction())

    async def listen(self, a, b, port):
        server = await asyncio.start_server(lambda r, w: self.serve(a, b, port, r, w), "127.0.0.1", 0, limit=CHUNK_BYTES)
        print(server.sockets[0].getsockname()[1], flush=True)

    async def serve(self, a, b, port, reader, writer):
        ends = [writer]
        out, back = self.direction(a, b), self.direction(b, a)
        try:
            for direction in (out, back):
                await direction.passing.wait()
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
            ends.append(up_writer)
            for end in ends:
                end.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.TaskGroup() as both:
                for direction, source, target in ((out, reader, up_writer), (back, up_reader, writer)):
                    queue = asyncio.Queue(WAITING_CHUNKS)
                    both.create_task(self.receive(direction, source, queue))
                    both.create_task(self.send(direction, queue, target))
        except* OSError:
            pass
        finally:
            for end in ends:
                end.transport.abort()

    async def receive(self, direction, reader, queue):
        clock, data = asyncio.get_running_loop().time, b"."
        while data:
            data = await reader.read(CHUNK_BYTES)
            late = RESEND_SECONDS if direction.loss and self.dice.random() < direction.loss else 0.0
            await queue.put((clock() + direction.delay + late, data))

    async def send(self, direction, queue, writer):
        """Ends by an exception, and so ends the other direction as well."""
        clock = asyncio.get_running_loop().time
        while True:
            due, data = await queue.get()
            if due > clock():
                await asyncio.sleep(due - clock())
            await direction.passing.wait()
            if not data:
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()

    def obey(self, a, b, word, *numbers):
        direction = self.direction(int(a), int(b))
        if word == "cut":
            direction.passing.clear()
            return
        direction.delay, direction.loss = float(numbers[0]) / 1000, float(numbers[1])
        direction.passing.set()


async def main():
    proxies = Proxies(sys.argv[1])
    for way in sys.argv[2:]:
        await proxies.listen(*map(int, way.split(":")))
    words = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
    while line := await words.readline():
        proxies.obey(*line.decode().split())
        print("done", flush=True)
    os._exit(0)  # with no word about connections that were open


asyncio.run(main())
