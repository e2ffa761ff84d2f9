"""A blocking gRPC server: does what a call's message says, and stamps when its handlers ran."""

import json
import sys
import time
from concurrent import futures

import grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}
handled = []


def infer(message, context):
    entered_ns = time.monotonic_ns()
    code = int.from_bytes(message[-8:-4], "big")
    work_us = int.from_bytes(message[-4:], "big")
    if work_us:
        time.sleep(work_us / 1e6)
    if code:
        context.set_code(CODES[code])
        context.set_details("as asked")
    handled.append({"entered_ns": entered_ns, "returned_ns": time.monotonic_ns()})
    return b""


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(infer)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), [Handler()])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
for _ in sys.stdin:
    print(json.dumps(handled), flush=True)
