"""A gRPC client with one connection: makes concurrent calls, and counts how they ended."""

import collections
import json
import sys
import threading

import grpc

CODES = [(0, b"fine"), (3, b"picky"), (5, b"absent"), (14, b"busy")]
METHOD = "/inference.GRPCInferenceService/ModelInfer"

channel = grpc.insecure_channel("127.0.0.1:" + sys.argv[1])
grpc.channel_ready_future(channel).result()
infer = channel.unary_unary(METHOD)


def message(index):
    code, model = CODES[max(index % 10 - 6, 0)]
    work_us = [0, 300, 700][index % 3]
    name = b"\x0a" + bytes([len(model)]) + model
    return name + b"\x3a\x08" + code.to_bytes(4, "big") + work_us.to_bytes(4, "big")


def call(count, at_once):
    ended = collections.Counter()
    room = threading.Semaphore(at_once)

    def end(future):
        ended[future.code().value[0]] += 1
        room.release()

    for index in range(count):
        room.acquire()
        infer.future(message(index)).add_done_callback(end)
    for _ in range(at_once):
        room.acquire()
    return sorted(ended.items())


print("connected", flush=True)
for line in sys.stdin:
    print(json.dumps(call(*map(int, line.split()))), flush=True)
