"""Predicts over gRPC as its standard input says, and prints how each call ended.

The one argument is the port on 127.0.0.1. A line of the input is

    predict MODEL VERSION JSON      one answer
    stream MODEL VERSION JSON       an answer in parts
    leave MODEL VERSION JSON        one answer, which is not waited for longer than a tenth of a second

where `-` leaves the version out, and JSON is what the handler gets. Each line is answered by one line of JSON:
`{"code": "OK", "ms": 12.3, "parts": 1}`, with gRPC's name of the status and the number of messages received.

The messages are encoded here, so that no compiled stubs are needed.
"""

import json
import sys
import time

import grpc

SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
PATIENCE_S = 20
IMPATIENCE_S = 0.1


def varint(number):
    """A number in groups of seven bits, the lowest first."""
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def field(number, content):
    """A field of the wire type that carries its length."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def predictions_request(model, version, body):
    """A PredictionsRequest with one input, named data."""
    request = field(1, model.encode())
    if version != "-":
        request += field(2, version.encode())
    return request + field(3, field(1, b"data") + field(2, body.encode()))


def call(channel, kind, request):
    """Makes one call: its status and the number of messages of its answer."""
    parts = 0
    try:
        if kind in ("predict", "leave"):
            patience_s = PATIENCE_S if kind == "predict" else IMPATIENCE_S
            channel.unary_unary(SERVICE + "Predictions")(
                request, timeout=patience_s, wait_for_ready=True
            )
            parts = 1
        else:
            answer = channel.unary_stream(SERVICE + "StreamPredictions")(
                request, timeout=PATIENCE_S, wait_for_ready=True
            )
            for _ in answer:
                parts += 1
    except grpc.RpcError as error:
        return error.code().name, parts
    return "OK", parts


def main():
    # A proxy of the environment is not meant for this machine's own addresses.
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel("127.0.0.1:" + sys.argv[1], options) as channel:
        for line in sys.stdin:
            kind, model, version, body = line.rstrip("\n").split(" ", 3)
            request = predictions_request(model, version, body)
            start = time.monotonic()
            code, parts = call(channel, kind, request)
            ms = (time.monotonic() - start) * 1000
            print(json.dumps({"code": code, "ms": ms, "parts": parts}), flush=True)


main()
