"""A model server with one thread, and its clients: what `cargo xtask pictures` measures.

`serve` prints its port. `load PORT SECONDS` sends a request now and then, and in the second half all that five clients
can, so that requests wait for the one thread.
"""

import asyncio
import http.client
import json
import sys
import threading
import time

BODY = json.dumps({"instances": list(range(50))})


class Ranker(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.data = b""

    def data_received(self, data):
        self.data += data
        head, mark, body = self.data.partition(b"\r\n\r\n")
        if not mark or len(body) < len(BODY):
            return
        self.data = b""
        time.sleep(0.08)  # the model
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n" + b'{"rank": 1}\n')


async def serve():
    server = await asyncio.get_running_loop().create_server(Ranker, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def client(port, begin, end, pause):
    time.sleep(max(0, begin - time.monotonic()))
    connection = http.client.HTTPConnection("127.0.0.1", port)
    while time.monotonic() < end:
        connection.request("POST", "/predictions/ranker", BODY)
        connection.getresponse().read()
        time.sleep(pause)


def load(port, seconds):
    begin = time.monotonic()
    end = begin + seconds
    clients = [(begin, begin + seconds / 2, 0.25)] + 5 * [(begin + seconds / 2, end, 0.0)]
    threads = [threading.Thread(target=client, args=(port, *one)) for one in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if sys.argv[1] == "serve":
    asyncio.run(serve())
else:
    load(int(sys.argv[2]), float(sys.argv[3]))
