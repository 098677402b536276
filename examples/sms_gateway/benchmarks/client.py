"""A client that costs little: it posts texts on connections that stay open, from threads."""

from __future__ import annotations

import re
import socket
import threading
import time
from urllib.parse import urlencode, urlsplit

from sms_gateway.simulator.forms import chikka_text

CLIENTS = 8


def request(netloc: str, request_id: str, number: str) -> bytes:
    """One POST of a text, as bytes."""
    body = urlencode(chikka_text(request_id, number, "bord on"))
    head = f"POST /message HTTP/1.1\r\nHost: {netloc}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}".encode()


def read_accepted(connection: socket.socket) -> None:
    """Read one answer to its end; raises OSError with it where it is no 202."""
    answer = b""
    while True:
        piece = connection.recv(65_536)
        answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if not piece or (length and len(body) >= int(length[1])):
            break
    if b" 202 " not in answer.partition(b"\r\n")[0]:
        raise OSError(answer)


def post_all(url: str, mark: str, count: int, rate: float | None = None) -> dict[str, float]:
    """Post ``count`` texts by 8 clients; when each number's text was accepted (seconds since 1970).

    Args:
        url: the server.
        mark: makes the request ids differ from those of other calls.
        count: how many.
        rate: texts a second, None for as many as the server takes.
    """
    netloc = urlsplit(url).netloc
    host, _, port = netloc.partition(":")
    accepted: dict[str, float] = {}
    problems: list[object] = []
    begun = time.monotonic()

    def client(first: int) -> None:
        try:
            with socket.create_connection((host, int(port))) as connection:
                for index in range(first, count, CLIENTS):
                    if rate is not None:
                        time.sleep(max(0.0, begun + index / rate - time.monotonic()))
                    number = f"63918{index:07}"
                    connection.sendall(request(netloc, f"{mark}-{index}", number))
                    read_accepted(connection)
                    accepted[number] = time.time()
        except OSError as error:
            problems.append(error)

    threads = [threading.Thread(target=client, args=(first,)) for first in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise SystemExit(f"a text was not accepted: {problems[0]!r}")
    return accepted
