"""A gRPC server with blocking handlers: any method, with a reply as its request's metadata say, and its marks."""

import sys
import time
from concurrent import futures

import grpc

from marks import Marks, Plan


def answer(request, context):
    asked = dict(context.invocation_metadata())
    marks = Marks(asked.get("x-case", ""))
    marks.read(len(request))
    plan = Plan(asked.get("x-plan", ""))
    if plan.sleep_s:
        time.sleep(plan.sleep_s)
    marks.begin(plan.status)
    context.add_callback(marks.end)
    if plan.status != 200:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "asked for")
    for index in range(plan.chunks or 1):
        if plan.gap_s and index:
            time.sleep(plan.gap_s)
        yield b"r" * plan.body_bytes


class Anything(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_stream_rpc_method_handler(answer)


def main():
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Anything(),))
    port = int(sys.argv[1])
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    server.start()
    server.wait_for_termination()


main()
