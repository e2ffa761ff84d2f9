"""Serves a model from a WSGI server, which handles one request at a time in each worker."""

import json
import time


def app(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    wanted = json.loads(environ["wsgi.input"].read(length) or b"{}")
    time.sleep(wanted.get("work_ms", 1) / 1000)
    usage = {"prompt_tokens": 9, "completion_tokens": 3}
    answer = json.dumps({"model": wanted.get("model"), "usage": usage}).encode()
    start_response("200 OK", [("content-type", "application/json"), ("content-length", str(len(answer)))])
    return [answer]
