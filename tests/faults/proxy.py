#!/usr/bin/env python3
"""A TCP proxy between a server and PostgreSQL, to be cut or stalled by whoever started it.

    proxy.py UPSTREAM_PORT     prints the port it listens on (127.0.0.1), then obeys the words that come on stdin, a line each:
        pass    from now on everything goes through (also what was held back)
        cut     break all connections, and new ones too
        stall   hold all bytes back; connections stay open
It ends with its stdin.
"""

import asyncio
import os
import socket
import struct
import sys

CHUNK_BYTES = 1 << 16
# SO_LINGER on with 0 seconds: close sends RST, as a peer that has gone would.
RESET = struct.pack("ii", 1, 0)


class Proxy:
    def __init__(self, upstream_port):
        self.upstream_port = upstream_port
        self.passing = asyncio.Event()
        self.passing.set()
        self.refusing = False
        self.transports = set()

    async def serve(self, reader, writer):
        ends = [writer]
        self.transports.add(writer.transport)
        try:
            if self.refusing:
                return
            await self.passing.wait()
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
            ends.append(up_writer)
            self.transports.add(up_writer.transport)
            for end in ends:
                end.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.gather(self.pump(reader, up_writer), self.pump(up_reader, writer))
        except OSError:
            pass
        finally:
            for end in ends:
                self.transports.discard(end.transport)
                end.transport.abort()

    async def pump(self, reader, writer):
        """One direction. Whichever ends first ends both."""
        while True:
            data = await reader.read(CHUNK_BYTES)
            await self.passing.wait()
            if not data:
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()

    def obey(self, word):
        self.refusing = word == "cut"
        if word == "stall":
            self.passing.clear()
        else:
            self.passing.set()
        if word == "cut":
            for transport in list(self.transports):
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                transport.abort()


async def main():
    proxy = Proxy(int(sys.argv[1]))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=CHUNK_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)
    words = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
    while line := await words.readline():
        proxy.obey(line.decode().strip())
        print("done", flush=True)
    os._exit(0)  # with no word about connections that were open


asyncio.run(main())
