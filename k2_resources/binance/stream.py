"""One socket to the combined streams of Binance: opened, subscribed, confirmed, read.

The library answers the server's pings with their own payload, asks after a silent peer with pings of its own, and stops
reading while nobody takes what it read. The rules it does not know are here: how many messages a client may send, and
that a subscription counts once the server has listed it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidProxy, InvalidStatus, InvalidURI, WebSocketException

from k2_core.errors import Misconfigured, Unreachable

LIVE_URL = "wss://stream.binance.com:9443"
URL_CHARACTERS_MAX = 2_000
"""Streams named in the URL; more are subscribed to afterwards. Servers and proxies cut off at 4,096 and above."""
SUBSCRIBED_AT_ONCE = 200
"""Streams in one SUBSCRIBE message."""
_CONTROL_SECONDS = 0.34
"""Pause between two control messages: three a second leave two of the five a client may send for ping and pong."""
FRAME_BYTES_MAX = 1 << 20
"""A frame of ours has some hundred bytes; a longer one than this ends the connection."""
_BUFFERED_FRAMES = 1_024
"""Frames the library reads ahead before it stops reading from the socket."""
_CLOSE_SECONDS_MAX = 2.0
"""How long the other side may take to say goodbye."""
_COMBINED = b'{"stream"'

OnFrame = Callable[[bytes], None]


class Refused(Unreachable):
    """Raised when the exchange answered and did not let us in. retry_seconds: how long it told us to stay away."""

    def __init__(self, message: str, retry_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


@dataclass(frozen=True)
class Endpoint:
    """Where the streams are and how to get there.

    url: scheme, host and port. ca_file: certificates trusted besides the system's. proxy: URL of one; without it what
    the environment says. ping_seconds: how often a peer is asked whether it lives, and how long it has for an answer.
    """

    url: str = LIVE_URL
    ca_file: Path | None = None
    proxy: str | None = None
    ping_seconds: float = 20.0
    open_seconds_max: float = 10.0

    def tls(self) -> ssl.SSLContext | None:
        """What to trust. None for a plain connection. Raises Misconfigured."""
        if not self.url.startswith("wss:"):
            return None
        context = ssl.create_default_context()
        if self.ca_file:
            try:
                context.load_verify_locations(self.ca_file)
            except (OSError, ssl.SSLError) as error:
                raise Misconfigured(f"{self.ca_file}: {error}; expected certificates in PEM form") from error
        return context


@dataclass
class Stream:
    """One open connection. `read` must run while anything else is awaited."""

    endpoint: Endpoint
    names: Sequence[str]
    _socket: ClientConnection
    _answers: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    _controls: int = 0
    _last_control: float = 0.0
    _is_over: bool = False

    @classmethod
    async def open(cls, endpoint: Endpoint, names: Sequence[str]) -> Stream:
        """Connect, naming in the URL the streams that fit there. Raises Misconfigured, Unreachable, Refused."""
        context = endpoint.tls()
        tls: dict[str, Any] = {"ssl": context} if context else {}
        try:
            socket = await connect(
                _url(endpoint.url, names[: _in_url(names)]),
                proxy=endpoint.proxy or True,
                compression=None,
                open_timeout=endpoint.open_seconds_max,
                ping_interval=endpoint.ping_seconds,
                ping_timeout=endpoint.ping_seconds,
                close_timeout=_CLOSE_SECONDS_MAX,
                max_size=FRAME_BYTES_MAX,
                max_queue=_BUFFERED_FRAMES,
                **tls,
            )
        except InvalidStatus as error:
            raise _refused(endpoint.url, error) from error
        except (InvalidURI, InvalidProxy, ImportError) as error:
            raise Misconfigured(f"{endpoint.url}: {error}; expected ws://host:port or wss://host:port") from error
        except (OSError, TimeoutError, WebSocketException) as error:
            raise Unreachable(f"{endpoint.url}: {type(error).__name__}: {error}") from error
        return cls(endpoint, names, socket)

    async def confirm(self) -> None:
        """Subscribe to what the URL did not name, then wait until the server lists every stream. Raises Unreachable."""
        rest = self.names[_in_url(self.names) :]
        for at in range(0, len(rest), SUBSCRIBED_AT_ONCE):
            await self._ask("SUBSCRIBE", list(rest[at : at + SUBSCRIBED_AT_ONCE]))
        listed = await self._ask("LIST_SUBSCRIPTIONS")
        missing = set(self.names).difference(listed if isinstance(listed, list) else ())
        if missing:
            raise Unreachable(f"{self.endpoint.url}: {len(missing)} streams not subscribed, e.g. {min(missing)}")

    async def read(self, on_frame: OnFrame) -> str:
        """Hand over every frame until the connection ends. Returns how it ended.

        What on_frame raises goes up, and so the connection is no longer read.
        """
        try:
            while True:
                frame = await self._socket.recv(decode=False)
                if not frame.startswith(_COMBINED) and self._is_answer(frame):
                    continue
                on_frame(frame)
        except ConnectionClosed as end:
            return str(end)
        finally:
            self._is_over = True
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(Unreachable(f"{self.endpoint.url}: closed before it answered"))

    async def close(self) -> None:
        """Say goodbye; what the server sent before its own goodbye is still read."""
        await self._socket.close()

    async def _ask(self, method: str, params: list[str] | None = None) -> Any:
        """One control message and its answer. Raises Unreachable when none comes, Refused with the server's words."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._last_control + _CONTROL_SECONDS - loop.time()))
        if self._is_over:
            raise Unreachable(f"{self.endpoint.url}: closed before {method} was asked")
        self._controls, self._last_control = self._controls + 1, loop.time()
        number, answer = self._controls, loop.create_future()
        self._answers[number] = answer
        message = {"method": method, **({"params": params} if params else {}), "id": number}
        try:
            await self._socket.send(json.dumps(message, ensure_ascii=False))
            async with asyncio.timeout(self.endpoint.open_seconds_max):
                return await answer
        except (TimeoutError, ConnectionClosed) as error:
            raise Unreachable(f"{self.endpoint.url}: no answer to {method}: {error or 'timeout'}") from error
        finally:
            self._answers.pop(number, None)

    def _is_answer(self, frame: bytes) -> bool:
        """Whether a frame answers a control message; the one who asked is told."""
        try:
            document = json.loads(frame)
            answer = self._answers[document["id"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            return False
        if answer.done():
            return True
        if "result" in document:
            answer.set_result(document["result"])
        else:
            answer.set_exception(Refused(f"{self.endpoint.url}: {frame[:200].decode(errors='replace')}"))
        return True


def _in_url(names: Sequence[str]) -> int:
    """How many of the streams fit into the URL: at least one."""
    length = 0
    for at, name in enumerate(names):
        length += len(quote(name, safe="@")) + 1
        if length > URL_CHARACTERS_MAX and at:
            return at
    return len(names)


def _url(base: str, names: Sequence[str]) -> str:
    streams = "/".join(quote(name, safe="@") for name in names)
    return f"{base.rstrip('/')}/stream?streams={streams}&timeUnit=MICROSECOND"


def _refused(url: str, error: InvalidStatus) -> Refused:
    wait = error.response.headers.get("Retry-After", "")
    body = bytes(error.response.body or b"")[:200].decode(errors="replace")
    return Refused(f"{url}: HTTP {error.response.status_code} {body}".rstrip(), float(wait) if wait.isdigit() else 0.0)
