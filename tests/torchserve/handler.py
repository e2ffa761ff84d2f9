"""A model without a model: sleeps and fails as each request's JSON body says.

Keys of the body, all optional; the longest sleep of a batch is the batch's:

    sleep_ms    time spent inside TorchServe's HandlerTime
    answer      how the request ends:
                "raise"      an exception of its own      -> 503
                "memory"     out of memory                -> 507
                "not-a-list" a result TorchServe refuses  -> 503
                "die"        the worker's process ends    -> 500
    fail_code   a PredictionException with this code
    set_code    an answer with this code, set in the way that TorchServe offers to handlers
    pad_bytes   size of the answer
    stream      number of parts, of 4 bytes each, sent ahead of the answer; over gRPC for StreamPredictions alone,
                because TorchServe gives the worker up otherwise; every request of a batch gets them
    gap_ms      time after each of these parts

TorchServe takes a handler's file for broken if it holds a second class.
"""

import json
import os
import time

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import PredictionException


def options_of(row):
    """What one request of the batch asks for."""
    body = row.get("body", row.get("data"))
    if isinstance(body, (bytes, bytearray)):
        body = json.loads(body) if body.strip() else {}
    return body if isinstance(body, dict) else {}


class ScriptedHandler(BaseHandler):
    """Stands where a model would."""

    def initialize(self, context):
        self.context = context
        self.manifest = context.manifest
        self.initialized = True

    def preprocess(self, data):
        return [options_of(row) for row in data]

    def inference(self, batch):
        time.sleep(max(float(options.get("sleep_ms", 0)) for options in batch) / 1000)
        for index, options in enumerate(batch):
            if "fail_code" in options:
                raise PredictionException("as asked", int(options["fail_code"]))
            if "set_code" in options:
                self.context.set_response_status(int(options["set_code"]), "as asked", index)
            answer = options.get("answer")
            if answer == "raise":
                raise ValueError("as asked")
            if answer == "memory":
                raise MemoryError("as asked")
            if answer == "die":
                os._exit(1)
        for _ in range(max(int(options.get("stream", 0)) for options in batch)):
            send_intermediate_predict_response(
                ["part"] * len(batch), self.context.request_ids, "as asked", 200, self.context
            )
            time.sleep(max(float(options.get("gap_ms", 0)) for options in batch) / 1000)
        return batch

    def postprocess(self, batch):
        if any(options.get("answer") == "not-a-list" for options in batch):
            return "not a list"
        return ["r" * int(options.get("pad_bytes", 16)) for options in batch]
