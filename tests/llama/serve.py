"""Serves a model with llama.cpp's own server until the end of standard input.

Usage: serve.py --model FILE --alias NAME --port PORT
"""

import argparse
import sys

import xllamacpp


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--model", required=True)
    options.add_argument("--alias", required=True)
    options.add_argument("--port", type=int, required=True)
    options = options.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = [options.alias]
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.n_ctx = 8192
    params.n_parallel = 4
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = 1
    params.endpoint_metrics = True
    # The server counts a token of a prompt only if it does not find it in its cache.
    params.cache_prompt = False
    params.chat_template = "chatml"
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    del server


main()
