"""Serves models as OpenAI's API would, for the test of the page: at once, or as a stream of tokens."""

import asyncio
import json


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    wanted = json.loads(body or b"{}")
    if wanted.get("stream"):
        await stream(send, wanted)
        return
    await asyncio.sleep(wanted.get("work_ms", 1) / 1000)
    status = 503 if wanted.get("fail") else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    usage = {"prompt_tokens": 9, "completion_tokens": 3}
    await send({"type": "http.response.body", "body": json.dumps({"model": wanted.get("model"), "usage": usage}).encode()})


async def stream(send, wanted):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for number in range(wanted["tokens"]):
        await asyncio.sleep(wanted["gap_ms"] / 1000)
        event = {"model": wanted["model"], "choices": [{"delta": {"content": f" {number}"}}]}
        await send({"type": "http.response.body", "body": f"data: {json.dumps(event)}\n\n".encode(), "more_body": True})
    usage = {"prompt_tokens": 40, "completion_tokens": wanted["tokens"]}
    end = {"model": wanted["model"], "choices": [], "usage": usage}
    await send({"type": "http.response.body", "body": f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n".encode()})
