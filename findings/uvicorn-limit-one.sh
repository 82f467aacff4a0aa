#!/usr/bin/env bash
# uvicorn 0.54.0: `limit_concurrency=1` answers every request with 503; a limit of N serves N - 1 connections.
#
# The limit is compared with the number of open connections, and the connection that the request came on is one of them:
# `len(connections) >= limit`. So a server that is to do one thing at a time does nothing. Idle connections count too: a
# client that keeps its connection open between requests, or one that has never sent anything, takes a place for as long
# as it stays. With a limit of 2 the only request that is made gets 503 while one such connection is open.
#
# Output seen:
#   limit 1, no other connection:  503
#   limit 2, no other connection:  200
#   limit 2, one idle connection:  503
#   limit 3, one idle connection:  200
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check uvicorn==0.54.0 h11==0.16.0 >&2
cat >"$work/show.py" <<'PYTHON'
import contextlib
import http.client
import socket
import sys
import threading
import time

import uvicorn


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextlib.contextmanager
def served(limit: int):
    settings = {"limit_concurrency": limit, "lifespan": "off", "http": "h11", "log_level": "critical"}
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, **settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1], server.server_state.connections
    server.should_exit = True
    thread.join()


def status(limit: int, idle: int) -> int:
    with served(limit) as (port, connections), contextlib.ExitStack() as stack:
        for _ in range(idle):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        while len(connections) < idle:
            time.sleep(0.01)
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        client.request("GET", "/", headers={"Connection": "close"})
        found = client.getresponse().status
        client.close()
        return found


found = {(limit, idle): status(limit, idle) for limit, idle in ((1, 0), (2, 0), (2, 1), (3, 1))}
for (limit, idle), code in found.items():
    print(f"limit {limit}, {'one idle' if idle else 'no other'} connection:  {code}")
sys.exit(0 if list(found.values()) == [503, 200, 503, 200] else "the behaviour has changed")
PYTHON
"$work/venv/bin/python" "$work/show.py"
