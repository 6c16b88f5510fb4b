"""What the upstream allows: bare HTTP over kept-alive sockets in one loop, no library, nothing parsed.

    bound.py URL KEY

With `load` connections and an upstream that waits, no client can be faster: the latency bound.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from urllib.parse import urlsplit

URL, KEY = sys.argv[1:3]
PLACE = urlsplit(URL)
HEAD = (
    f"POST /reportIncorrectImageCaptcha HTTP/1.1\r\nHost: {PLACE.netloc}\r\n"
    "Content-Type: application/json\r\nContent-Length: "
).encode()


def drive(load: int, seconds: float, task: int) -> dict[str, object]:
    """Keep `load` requests in flight; see `bench.load.Caller`."""
    poll = select.epoll() if hasattr(select, "epoll") else None
    assert poll is not None, "this floor needs epoll"
    sockets = {}
    for _ in range(load):
        sock = socket.create_connection((PLACE.hostname or "", PLACE.port or 80))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(sock, select.EPOLLIN)
        sockets[sock.fileno()] = sock
    latencies: list[float] = []
    began_at: dict[int, float] = {}
    clock = time.perf_counter
    began = clock()
    until = began + seconds

    def send(fd: int) -> None:
        nonlocal task
        task += 1
        body = b'{"clientKey":"%b","taskId":%d}' % (KEY.encode(), task)
        began_at[fd] = clock()
        sockets[fd].send(b"%b%d\r\n\r\n%b" % (HEAD, len(body), body))

    for fd in sockets:
        send(fd)
    while began_at:
        for fd, _ in poll.poll(30):
            sockets[fd].recv(4096)  # the answer is one packet on loopback
            at = clock()
            latencies.append(at - began_at.pop(fd))
            if at < until:
                send(fd)
    took = clock() - began
    for sock in sockets.values():
        sock.close()
    return {"reports": len(latencies), "seconds": took, "latencies": latencies, "failed": 0}


for line in sys.stdin:
    order = json.loads(line)
    print(json.dumps(drive(order["load"], order["seconds"], order["first"])), flush=True)
