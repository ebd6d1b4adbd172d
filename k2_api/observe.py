"""What the API tells about itself and the lake: a correlation id on every answer, request metrics, state metrics.

State metrics are computed from the tables at each scrape; nothing here is remembered that the lake also knows.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from k2_api.browsers import protective
from k2_api.problems import internal_error, problem_response
from k2_api.reads import Pinned

LOG = logging.getLogger("k2.api")
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Buckets from a cached answer to the deadline of a query."""


class RequestMetrics:
    """Counters of one API process, in a registry of their own. Labels are bounded: templates, never raw paths."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "endpoint", "status_code")
        self.requests = Counter("k2_http_requests", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram(
            "k2_http_request_duration_seconds",
            "Time to answer.",
            ("method", "endpoint"),
            registry=self.registry,
            buckets=_SECONDS,
        )
        about = Gauge("k2_platform_info", "The running K2.", ("version",), registry=self.registry)
        about.labels(version).set(1)

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Count one answered request."""
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        endpoint = getattr(scope.get("route"), "path", None) or "unmatched"
        self.requests.labels(method, endpoint, str(status)).inc()
        self.seconds.labels(method, endpoint).observe(seconds)


class Observer:
    """Outermost layer: gives each request its correlation id, counts it, and turns a defect into a 500 problem."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        correlation_id = _correlation_id(scope)
        scope.setdefault("state", {})["correlation_id"] = correlation_id
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = message["headers"]
                message["headers"] = [*own, *protective(own), (b"x-correlation-id", correlation_id.encode())]
            await send(message)

        started = time.perf_counter()
        bind_contextvars(correlation_id=correlation_id)  # of this request's task: whatever it logs is found again
        try:
            await self.app(scope, receive, noting)
        except Exception:
            LOG.exception("%s %s failed", correlation_id, scope["path"])
            if status:
                raise
            await problem_response(internal_error(), scope["path"], correlation_id)(scope, receive, noting)
        finally:
            self.metrics.observe(scope, status, time.perf_counter() - started)


def state_metrics(pinned: Iterable[Pinned], snapshots: dict[str, int]) -> bytes:
    """Render what the tables say now, as Prometheus text. snapshots: retained snapshots per table."""
    registry = CollectorRegistry()

    def gauge(name: str, doc: str, *labels: str) -> Gauge:
        return Gauge(name, doc, ("table", *labels), registry=registry)

    rows = gauge("k2_table_rows", "Rows stored, revisions included.")
    files = gauge("k2_table_files", "Data files of the head.")
    size = gauge("k2_table_bytes", "Bytes of the data files of the head.")
    sequence = gauge("k2_table_sequence_number", "Iceberg sequence number of the head.")
    kept = gauge("k2_table_snapshots", "Snapshots retained.")
    commit = gauge("k2_table_commit_timestamp_seconds", "Commit time of the head, seconds since the epoch.")
    offset = gauge("k2_table_next_offset", "Next offset the table will read.", "topic", "kafka_partition")
    for p in pinned:
        if p.state is None:
            continue
        name = p.table.name
        rows.labels(name).set(sum(f.rows for f in p.files))
        files.labels(name).set(len(p.files))
        size.labels(name).set(sum(f.size_bytes for f in p.files))
        sequence.labels(name).set(p.state.sequence_number)
        kept.labels(name).set(snapshots.get(name, 0))
        if p.state.commit_time:
            commit.labels(name).set(p.state.commit_time.timestamp())
        for (topic, kafka_partition), position in p.state.offsets.positions.items():
            offset.labels(name, topic, str(kafka_partition)).set(position.next)
    return generate_latest(registry)


def _correlation_id(scope: Scope) -> str:
    sent = dict(scope["headers"]).get(b"x-correlation-id", b"").decode("latin-1")
    return sent if _SANE_ID.fullmatch(sent) else secrets.token_hex(4)
