"""Where alerts arrive in tests: a real HTTP server and a real SMTP server on loopback, which fail when told to."""

from __future__ import annotations

import asyncio
import email
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message as Mail
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Posts:
    """A webhook. status: what it answers; what it answers with an error it has not taken."""

    url: str
    status: int = 200
    taken: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    asked: int = 0


@contextmanager
def webhook() -> Iterator[Posts]:
    """Serve a webhook meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            posts.asked += 1
            if posts.status < 300:
                posts.taken.append(body)
                posts.headers.append(dict(self.headers.items()))
            self.send_response(posts.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        posts = Posts(f"http://127.0.0.1:{server.server_address[1]}/hook")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield posts
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Mails:
    """A mail server. refuses: recipients it does not know. is_down: whether it hangs up at once."""

    port: int = 0
    taken: list[Mail] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    is_down: bool = False

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def mail_server() -> Iterator[Mails]:
    """Serve SMTP meanwhile: as much of RFC 5321 as a client needs to hand over a mail."""
    mails, loop, started = Mails(), asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        server = await asyncio.start_server(lambda r, w: _session(mails, r, w), "127.0.0.1", 0)
        mails.port = server.sockets[0].getsockname()[1]
        started.set()
        async with server:
            await stopped.wait()

    stopped = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    started.wait(10)
    try:
        yield mails
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(10)
        loop.close()


async def _session(mails: Mails, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    def say(line: str) -> None:
        writer.write(f"{line}\r\n".encode())

    say("421 going away" if mails.is_down else "220 ready")
    accepted = 0
    while not mails.is_down and (line := (await reader.readline()).decode().strip()):
        verb = line.partition(" ")[0].upper()
        if verb == "RCPT":
            known = not any(name in line for name in mails.refuses)
            accepted += known
            say("250 ok" if known else "550 no such mailbox")
        elif verb == "DATA" and accepted:
            say("354 go on")
            body = await reader.readuntil(b"\r\n.\r\n")
            mails.taken.append(email.message_from_bytes(body[:-5].replace(b"\r\n..", b"\r\n.")))
            say("250 taken")
        elif verb == "QUIT":
            say("221 bye")
            break
        else:
            say("250 ok" if verb in ("EHLO", "HELO", "MAIL", "RSET") else "502 no")
    await writer.drain()
    writer.close()
