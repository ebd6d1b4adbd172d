"""`k2 serve`: the read API alone."""

from __future__ import annotations

import contextlib
import math
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from k2_resources.settings import Settings

DRAIN_SECONDS = 10
"""Patience with answers under way when the server is asked to stop."""


@click.command()
@click.option("--host", default=None, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=None, help="Port to prefer; 0 = any free one.")
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=None, help="K2_HOME.")
def serve(host: str | None, port: int | None, home: Path | None) -> None:
    """Serve the read API until Ctrl-C."""
    from k2_api.app import create_app
    from k2_resources import telemetry
    from k2_resources.settings import Settings

    telemetry.configure("api")
    settings = Settings(home=home) if home else Settings()
    listener = listen(host or settings.api_host, settings.api_port if port is None else port)
    app = create_app(settings)
    address, bound = listener.getsockname()[:2]
    click.echo(f"API http://{address}:{bound}  docs http://{address}:{bound}/docs  key {settings.api_key_file}")
    server = server_of(settings, app, log_config=None)  # its records go where all others go
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after it has drained
        server.run(sockets=[listener])


def server_of(settings: Settings, app: FastAPI, **more: Any) -> uvicorn.Server:
    """The server of an app, bounded as the settings say. more: further options of uvicorn."""
    import uvicorn

    from k2_api.connections import Patience, protocol

    patience = Patience(settings.api_header_seconds_max, settings.api_stall_seconds_max, settings.api_connections_max)
    options: dict[str, Any] = {
        "http": protocol(patience),
        "ws": "none",
        "lifespan": "on",
        "log_level": "warning",
        "access_log": False,  # it would write what was asked, and somebody will put a key into a question
        "server_header": False,
        "proxy_headers": False,  # a client may name any address in them
        "timeout_keep_alive": math.ceil(settings.api_idle_seconds_max),
        "timeout_graceful_shutdown": DRAIN_SECONDS,
    }
    return uvicorn.Server(uvicorn.Config(app, **{**options, **more}))


def listen(host: str, port: int) -> socket.socket:
    """Bind the preferred port, or any free one when it is taken."""
    family = socket.getaddrinfo(host, None)[0][0]
    for candidate in (port, 0):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen()
            return listener
        except OSError:
            listener.close()
            if candidate == 0:
                raise
    raise AssertionError("unreachable: the loop returns or raises")
