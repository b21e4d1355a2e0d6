"""An independent client that stamps tokens: Python's own sockets and clock, nothing of ours.

Prints when each line with text came, in milliseconds from sending, as a JSON array.
Usage: stamps.py URL PROMPT TOKENS
"""

import json
import socket
import sys
import time
from urllib.parse import urlsplit


def main() -> None:
    url, prompt, tokens = sys.argv[1:]
    place = urlsplit(url)
    body = json.dumps(
        {
            "model": "fake",
            "messages": [{"role": "user", "content": prompt}],
            "options": {"num_predict": int(tokens)},
        }
    ).encode()
    head = (
        f"POST /api/chat HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection((place.hostname, place.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent = time.monotonic_ns()
        connection.sendall(head + body)
        print(json.dumps(stamps(connection, sent)))


def stamps(connection: socket.socket, sent: int) -> list[float]:
    """Reads until the last line; a line's stamp is that of the read that completed it."""
    came: list[float] = []
    rest = b""
    while True:
        data = connection.recv(65536)
        now = (time.monotonic_ns() - sent) / 1e6
        if not data:
            return came
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            # Sizes of chunks stand between the lines.
            if not line.startswith(b"{"):
                continue
            value = json.loads(line)
            if value["message"]["content"]:
                came.append(now)
            if value["done"]:
                return came


main()
