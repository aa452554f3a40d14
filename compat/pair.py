"""Two linked sites with a server each: each site has a PostgreSQL cluster of its own."""

import resp
import servers
import sites

LINK_SECONDS = 30


class Pair:
    """Both servers, started and linked. Ends them with `stop`; the clusters end with this process."""

    def __init__(self, program, password=None):
        self.servers = []
        databases = sites.linked_databases(2)
        try:
            for here, there in ((0, 1), (1, 0)):
                options = ["--site", f"site{here}", "--peer", f"site{there}={databases[there][0]}"]
                server = servers.Server(program, databases[here][0], password=password, options=options)
                server.secret = databases[here][1]
                self.servers.append(server)
        except BaseException:
            self.stop()
            raise

    def stop(self):
        for server in self.servers:
            server.stop()

    def port(self, number):
        """Of the server that the user or node of that number is at."""
        return self.servers[number % 2].port

    def is_linked(self):
        """Whether what is written at each site is there at the other, awaited for a while."""
        return all(self._reaches(number) for number in (0, 1))

    def _reaches(self, number):
        clients = [resp.Client(self.port(side)) for side in (number, number + 1)]
        try:
            for side, client in zip((number, number + 1), clients):
                if self.servers[side % 2].password:
                    client.command("AUTH", self.servers[side % 2].password)
            clients[0].command("SET", f"link-{number}", "up")
            return bool(servers.wait_until(lambda: clients[1].command("GET", f"link-{number}").plain() == b"up", LINK_SECONDS))
        finally:
            for client in clients:
                client.close()
