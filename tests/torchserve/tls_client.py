"""Sends requests to a TorchServe over TLS, and asserts their statuses.

Arguments: port, certificate, clients, rounds, and the requests as JSON: `[[target, body, status], ...]`.
"""

import http.client
import json
import ssl
import sys
import threading


def run(port, context, requests, start, rounds, failures):
    try:
        connection = http.client.HTTPSConnection("localhost", port, context=context)
        for index in range(rounds * len(requests)):
            target, body, status = requests[(start + index) % len(requests)]
            connection.request("POST", target, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            assert response.status == status, (target, body, response.status)
        connection.close()
    except Exception as error:
        failures.append(error)


def main():
    port, certificate, clients, rounds, requests = sys.argv[1:]
    context = ssl.create_default_context(cafile=certificate)
    requests, failures = json.loads(requests), []
    threads = [
        threading.Thread(target=run, args=(int(port), context, requests, start, int(rounds), failures))
        for start in range(int(clients))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


main()
