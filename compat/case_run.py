"""Runs the steps of one case on one server, on as many connections as the case has."""

import time

import caselang
import normalise
import resp
from resp import Reply

STEP_SECONDS = resp.REPLY_SECONDS  # the longest wait for an answer or an awaited message
AFTER_FAILURE_SECONDS = 0.1  # further waits in a case that has already failed so


def failure(text):
    return Reply("failure", text.encode())


class CaseRun:
    """The connections of a case on one server."""

    def __init__(self, port, protocol, transcript, start_time, step_seconds):
        self.port = port
        self.protocol = protocol
        self.transcript = transcript
        self.start_time = start_time
        self.step_seconds = step_seconds
        self.clients = {}
        self.variables = {}
        self.broken = set()  # connections that may stand in the middle of a request
        self.failed = False

    def client(self, number):
        if number not in self.clients:
            client = resp.Client(self.port, timeout=self.step_seconds)
            self.clients[number] = client
            if self.protocol == 3:
                client.hello(3)
        return self.clients[number]

    def step(self, step):
        client = self.client(step.conn)
        if client.closed:
            return [failure("closed")]
        client.timeout = AFTER_FAILURE_SECONDS if self.failed else self.step_seconds
        try:
            return self._answers(client, step)
        except resp.Timeout as error:
            self.failed = True
            return [failure(str(error))]
        except resp.Closed:
            client.close()
            return [failure("closed")]
        except resp.ProtocolError as error:
            client.close()
            return [failure(f"protocol error: {error}")]

    def _answers(self, client, step):
        if step.await_what == "eof":
            return self._until_closed(client)
        if isinstance(step.await_what, str):
            return self._messages_until(client, step.await_what.removeprefix("until ").encode())
        if step.await_what is not None:
            return [client.read_push() for _ in range(step.await_what)]
        words = caselang.resolve(step.words, self.variables, self.start_time)
        if step.option("wire") is not None:
            client.send_raw(b"".join(words))
            return [client.read() for _ in range(int(step.option("wire")))]
        if step.option("raw") is not None:
            return self._raw(client, step, b"".join(words))
        if step.option("scanall") is not None:
            return [self._scan_all(client, words)]
        wanted = step.option("until")
        deadline = time.monotonic() + client.timeout
        while True:
            replies = self._command(client, step, words)
            if wanted is None or replies[0].text() == wanted or time.monotonic() > deadline:
                return replies

    def _command(self, client, step, words):
        name = words[0].upper() if words else b""
        if name in (b"HELLO", b"RESET"):
            client.set_protocol(None)
        client.send(*words)
        if step.option("noreply") is not None:
            return []
        replies = [client.read_reply()]
        if replies[0].kind in ("array", "push") and name.lower() in resp.SUBSCRIPTION_KINDS:
            replies += [client.read_reply() for _ in range(self._notices(client, name, words) - 1)]
        self._follow(client, name, words, replies[0])
        if step.option("save") is not None:
            self.variables[step.option("save")] = resp.to_bytes(replies[0].value)
        return replies

    @staticmethod
    def _notices(client, name, words):
        """How many notices a command of the SUBSCRIBE family gets; the first has been read."""
        if len(words) > 1:
            return len(words) - 1
        letter = {b"PUNSUBSCRIBE": "p", b"SUNSUBSCRIBE": "s"}.get(name, "")
        return max(1, len(client.subscribed[letter]) + 1)

    @staticmethod
    def _follow(client, name, words, reply):
        """Keeps the reader in step with what the command changed on the connection."""
        if reply.is_error() or reply.value == b"QUEUED":
            return
        if name == b"MONITOR":
            client.monitoring = True
        elif name == b"RESET":
            client.set_protocol(2)
            client.monitoring = False
            client.subscribed = {"": set(), "p": set(), "s": set()}
        elif name == b"HELLO":
            client.set_protocol(3 if reply.kind == "map" else 2)

    @staticmethod
    def _messages_until(client, text):
        """All messages up to and with the first that has the text in it."""
        replies = [client.read_push()]
        while text not in normalise.texts_of(replies[-1]):
            replies.append(client.read_push())
        return replies

    def _raw(self, client, step, data):
        self.broken.add(client)
        client.send_raw(data)
        if step.option("raw") == "eof":
            return self._until_closed(client)
        return [client.read_reply() for _ in range(int(step.option("raw")))]

    @staticmethod
    def _until_closed(client):
        replies = []
        try:
            while True:
                replies.append(client.read())
        except resp.Closed:
            client.close()
            return replies + [failure("closed")]

    @staticmethod
    def _scan_all(client, words):
        """Follows the cursor (the word @) to its end; gives all items without repetition, in order."""
        cursor, items, pairs = b"0", {}, words[0].upper() == b"HSCAN"
        for _ in range(100000):
            reply = client.command(*[cursor if word == b"@" else word for word in words])
            if reply.kind != "array" or len(reply.value) != 2:
                return reply
            cursor, found = reply.value[0].value, reply.value[1].value
            if pairs:
                items.update((k.text(), Reply("array", [k, v])) for k, v in zip(found[::2], found[1::2]))
            else:
                items.update((k.text(), k) for k in found)
            if cursor == b"0":
                return Reply("array", [items[text] for text in sorted(items)])
        return failure("the cursor never ends")

    def finish(self):
        """What came on each connection without having been asked for. RESET is the mark that ends it."""
        leftover = []
        for number in sorted(self.clients):
            client = self.clients[number]
            if client.closed:
                continue
            if client not in self.broken:
                leftover += [Reply("array", [Reply("integer", number), extra]) for extra in self._drain(client)]
            client.close()
        return leftover

    def _drain(self, client):
        extra, monitoring = list(client.pushes), client.monitoring
        try:
            client.set_protocol(None)
            client.send("RESET")
            while True:
                reply = client.read(AFTER_FAILURE_SECONDS if self.failed else self.step_seconds)
                if reply.kind == "simple" and reply.value == b"RESET":
                    return [] if monitoring else extra
                extra.append(reply)
        except resp.Closed:
            return extra + [failure("closed")]
        except (resp.Timeout, resp.ProtocolError) as error:
            return extra + [failure(f"after RESET: {error}")]
