"""Sends requests over TLS, and prints one JSON line for each: its case, the client's port, its number on the connection,
and its times by CLOCK_MONOTONIC.

Arguments: port, requests, connections, requests of a connection, version, `h2` or `http/1.1` or `-` for ALPN, bytes of
bodies, and `cert` to send a certificate. A connection resumes the session of the one before.
"""

import http.client
import json
import pathlib
import socket
import ssl
import sys
import threading
import time

FOLDER = pathlib.Path(__file__).parent
CERTIFICATE, KEY = FOLDER / "tls_cert.pem", FOLDER / "tls_key.pem"


class Client:
    def __init__(self, port, per_connection, version, alpn, body_bytes, certified):
        self.port, self.per_connection, self.body_bytes = port, per_connection, body_bytes
        self.context = ssl.create_default_context(cafile=str(CERTIFICATE))
        if version == "1.2":
            self.context.maximum_version = ssl.TLSVersion.TLSv1_2
        if alpn != "-":
            self.context.set_alpn_protocols([alpn])
        if certified:
            self.context.load_cert_chain(str(CERTIFICATE), str(KEY))

    def run(self, name, requests):
        session, sent = None, 0
        while sent < requests:
            plain = socket.create_connection(("127.0.0.1", self.port))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            secured = self.context.wrap_socket(plain, server_hostname="localhost", session=session)
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
            connection.sock = secured
            for index in range(min(self.per_connection, requests - sent)):
                case = f"{name}-{sent}"
                query = f"/infer?body={self.body_bytes}&sleep_ms={sent % 3}"
                body = b"b" * self.body_bytes
                port = secured.getsockname()[1]
                begun = time.monotonic_ns()
                connection.request("POST", query, body=body, headers={"x-case": case})
                response = connection.getresponse()
                assert response.status == 200 and len(response.read()) == self.body_bytes
                row = {"case": case, "port": port, "index": index}
                row |= {"begun_ns": begun, "ended_ns": time.monotonic_ns()}
                # One write: threads share the output.
                sys.stdout.write(json.dumps(row) + "\n")
                sent += 1
            session = secured.session
            connection.close()


def speak_http2(client):
    """Sends requests over HTTP/2 on one connection, one after the other."""
    import h2.connection
    import h2.events

    plain = socket.create_connection(("127.0.0.1", client.port))
    secured = client.context.wrap_socket(plain, server_hostname="localhost")
    assert secured.selected_alpn_protocol() == "h2"
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    secured.sendall(connection.data_to_send())
    for _ in range(client.per_connection):
        stream = connection.get_next_available_stream_id()
        head = [(":method", "GET"), (":path", "/infer?body=40"), (":scheme", "https"), (":authority", "a")]
        connection.send_headers(stream, head, end_stream=True)
        secured.sendall(connection.data_to_send())
        ended = False
        while not ended:
            for event in connection.receive_data(secured.recv(65536)):
                ended |= isinstance(event, h2.events.StreamEnded)
            secured.sendall(connection.data_to_send())
    connection.close_connection()
    secured.sendall(connection.data_to_send())
    secured.close()


def main():
    port, requests, connections, per_connection, version, alpn, body_bytes, certificate = sys.argv[1:]
    client = Client(
        int(port), int(per_connection), version, alpn, int(body_bytes), certificate == "cert"
    )
    if alpn == "h2":
        return speak_http2(client)
    share = int(requests) // int(connections)
    threads = [
        threading.Thread(target=client.run, args=(f"c{index}", share))
        for index in range(int(connections))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


main()
