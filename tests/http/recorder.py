"""An engine that keeps every byte it gets, and answers each request that h11 finds in them."""

from tests.http.reading import requests_in


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


class Recorder:
    """The script of an engine (`tests.proxy.doubles.Engine`); one entry for each connection."""

    def __init__(self):
        self.connections = []

    async def __call__(self, side):
        mine = len(self.connections)
        self.connections.append(b"")
        answered = 0
        while data := await self._read(side):
            self.connections[mine] += data
            found = requests_in(self.connections[mine])
            assert not found.refused, (found.refused, self.connections[mine])
            for _ in found.messages[answered:]:
                await side.send(ANSWER)
            answered = len(found.messages)

    async def _read(self, side):
        try:
            return await side.reader.read(2**20)
        except ConnectionResetError:
            return b""

    def requests(self):
        """What came, as (method, target, body), and that nothing else did."""
        found = []
        for data in self.connections:
            reading = requests_in(data)
            assert reading.refused == ""
            for message in reading.messages:
                found.append((*message.start, message.body))
                assert message.values(b"transfer-encoding") == []
                assert len(message.values(b"content-length")) <= 1
                assert message.values(b"upgrade") == []
        return found
