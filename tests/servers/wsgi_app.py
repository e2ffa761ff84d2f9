"""A WSGI application that does as the query of each request says, and keeps its marks."""

import time

from marks import Marks, Plan


class Answer:
    """The parts of a response; the server calls `close` once it has sent the last."""

    def __init__(self, marks, plan, parts):
        self.marks, self.plan, self.parts = marks, plan, parts

    def __iter__(self):
        for index, part in enumerate(self.parts):
            if self.plan.gap_s and index:
                time.sleep(self.plan.gap_s)
            yield part

    def close(self):
        self.marks.end()


def app(environ, start_response):
    marks = Marks(environ.get("HTTP_X_CASE", ""))
    plan = Plan(environ.get("QUERY_STRING", ""))
    if not plan.early:
        body_bytes = 0
        while True:
            piece = environ["wsgi.input"].read(65536)
            if not piece:
                break
            body_bytes += len(piece)
        marks.read(body_bytes)
    if plan.sleep_s:
        time.sleep(plan.sleep_s)
    marks.begin(plan.status)
    start_response(f"{plan.status} Status", plan.fields())
    parts = [] if environ["REQUEST_METHOD"] == "HEAD" else plan.parts()
    return Answer(marks, plan, parts)
