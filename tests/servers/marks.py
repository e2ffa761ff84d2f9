"""What a server knows of its own requests: one JSON line each, in the file that MARKS names.

Times are CLOCK_MONOTONIC, in nanoseconds. A request is known by its field `x-case`.
"""

import json
import os
import time
from urllib.parse import parse_qs

_FILE = os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Marks:
    """The marks of one request, from the handler's begin."""

    def __init__(self, case):
        self.row = {
            "case": case,
            "pid": os.getpid(),
            "entered_ns": now_ns(),
            "read_ns": None,
            "begun_ns": None,
            "ended_ns": None,
            "status": 0,
            "body_bytes": 0,
        }

    def read(self, body_bytes):
        """The body was read to its end."""
        self.row["read_ns"] = now_ns()
        self.row["body_bytes"] = body_bytes

    def begin(self, status):
        """The answer is about to be handed over."""
        self.row["begun_ns"] = now_ns()
        self.row["status"] = status

    def end(self):
        """The whole response was sent, or the client is gone."""
        self.row["ended_ns"] = now_ns()
        os.write(_FILE, (json.dumps(self.row) + "\n").encode())


def burn(seconds):
    """Uses up CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


class Plan:
    """What the query of a request asks for."""

    def __init__(self, query):
        fields = {name: values[0] for name, values in parse_qs(query).items()}
        number = lambda name, default=0: int(fields.get(name, default))
        self.sleep_s = number("sleep_ms") / 1000
        self.status = number("status", 200)
        self.body_bytes = number("body", 2)
        self.chunks = number("chunks")
        self.gap_s = number("gap_ms") / 1000
        # CPU time in the handler, and whether a pool of threads spends it.
        self.burn_s = number("burn_us") / 1_000_000
        self.pool = number("pool") == 1
        # After the response, with no request in hand.
        self.block_s = number("block_ms") / 1000
        self.early = number("early") == 1
        self.close = number("close") == 1
        self.events = number("events") == 1

    def parts(self):
        """The answer's body, one piece for each time it is handed over."""
        if self.status in (204, 304):
            return []
        if not self.chunks:
            return [b"r" * self.body_bytes]
        if self.events:
            return [b"data: " + b"r" * self.body_bytes + b"\n\n"] * self.chunks
        return [b"r" * self.body_bytes] * self.chunks

    def fields(self):
        """Header fields of the answer."""
        fields = []
        if self.events:
            fields.append(("content-type", "text/event-stream"))
        if not self.chunks and self.status not in (204, 304):
            fields.append(("content-length", str(self.body_bytes)))
        if self.close:
            fields.append(("connection", "close"))
        return fields
