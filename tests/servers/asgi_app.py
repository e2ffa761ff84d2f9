"""An ASGI application that does as the query of each request says, and keeps its marks."""

import asyncio
import time

from marks import Marks, Plan, burn


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await echo(scope, receive, send)
    else:
        await answer(scope, receive, send)


async def lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def case_of(scope):
    return dict(scope["headers"]).get(b"x-case", b"").decode()


async def echo(scope, receive, send):
    marks = Marks(case_of(scope))
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            marks.read(0)
            marks.begin(101)
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        else:
            marks.end()
            return


async def answer(scope, receive, send):
    marks = Marks(case_of(scope))
    plan = Plan(scope["query_string"].decode())
    if not plan.early:
        body_bytes = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                marks.end()
                return
            body_bytes += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        marks.read(body_bytes)
    if plan.sleep_s:
        await asyncio.sleep(plan.sleep_s)
    if plan.burn_s and plan.pool:
        await asyncio.get_running_loop().run_in_executor(None, burn, plan.burn_s)
    elif plan.burn_s:
        burn(plan.burn_s)
    fields = [(name.encode(), value.encode()) for name, value in plan.fields()]
    marks.begin(plan.status)
    try:
        await send({"type": "http.response.start", "status": plan.status, "headers": fields})
        parts = plan.parts()
        for index, part in enumerate(parts):
            if plan.gap_s and index:
                await asyncio.sleep(plan.gap_s)
            more = plan.chunks > 0 or index + 1 < len(parts)
            await send({"type": "http.response.body", "body": part, "more_body": more})
        if plan.chunks or not parts:
            await send({"type": "http.response.body", "body": b""})
    finally:
        marks.end()
    if plan.block_s:
        # As garbage collection or a forgotten blocking call does: the event loop stands still.
        time.sleep(plan.block_s)
