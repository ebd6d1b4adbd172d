"""`k2 serve`: the read API alone."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import click

DRAIN_SECONDS = 10
"""Patience with answers under way when the server is asked to stop."""


@click.command()
@click.option("--host", default=None, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=None, help="Port to prefer; 0 = any free one.")
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=None, help="K2_HOME.")
def serve(host: str | None, port: int | None, home: Path | None) -> None:
    """Serve the read API until Ctrl-C."""
    import uvicorn

    from k2_api.app import create_app
    from k2_resources.settings import Settings

    settings = Settings(home=home) if home else Settings()
    listener = listen(host or settings.api_host, settings.api_port if port is None else port)
    app = create_app(settings)
    address, bound = listener.getsockname()[:2]
    click.echo(f"API http://{address}:{bound}  docs http://{address}:{bound}/docs  key {settings.api_key_file}")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=DRAIN_SECONDS))
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after it has drained
        server.run(sockets=[listener])


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
