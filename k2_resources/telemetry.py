"""Structured logs: a line of JSON per event, or colours when a person watches.

Belongs here: how events are rendered and where they go. Does not: metrics, which are computed from ground state
at scrape.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from k2_resources import clock

if TYPE_CHECKING:
    from structlog.typing import Processor

_TALKATIVE = ("alembic", "httpx", "httpx2", "httpcore", "httpcore2", "pyiceberg", "urllib3")
"""Libraries that log each request, migration or read at INFO."""


def configure(service: str, *, file: Path | None = None, level: int = logging.INFO) -> None:
    """Send all logs of this process to stderr or a file, each event naming the service. Called once by a process main.

    Records of the standard library (uvicorn, sqlalchemy) are rendered the same way.
    """
    sink = logging.FileHandler(file) if file else logging.StreamHandler(sys.stderr)
    watched = file is None and sys.stderr.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        _stamp,
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    sink.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_rendering(watched)))
    logging.basicConfig(handlers=[sink], level=level, force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(service=service)


def _rendering(watched: bool) -> list[Processor]:
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if watched:
        return [strip, structlog.dev.ConsoleRenderer()]
    return [strip, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]


def _stamp(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["timestamp"] = clock.now().isoformat(timespec="microseconds")
    return event
