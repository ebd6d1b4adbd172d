"""Notices as people and machines read them: a title, lines of text, a JSON document; with links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from k2_core.alerts import Alert, Kind, Notice
from k2_core.windows import from_us, iso

RUNBOOK_SECTIONS: Mapping[str, str] = {
    "check": "alert-check-a-check-failed",
    "run": "alert-run-a-run-failed",
    "silence": "alert-silence-a-feed-says-nothing",
    "lag": "alert-lag-records-wait",
    "halt": "alert-halt-a-topic-or-a-kafka-partition-stands-still",
    "unreachable": "unreachable-a-server-did-not-answer",
    "daemon": "alert-daemon-dagsters-daemon-is-silent",
    "sequence_gaps": "gaps-ids-that-are-missing",
    "dead_letters": "dead-letters-back-into-the-topic",
    "OFFSET_BELOW_RETENTION": "offset_below_retention-records-are-gone-before-they-were-read",
    "LOG_TRUNCATED": "log_truncated-the-log-ends-before-what-was-read",
    "INCARNATION_CHANGED": "incarnation_changed-the-cluster-or-the-topic-is-another-one",
    "PARTITION_PAUSED": "partition_paused-a-storm-of-dead-letters",
    "SCHEMA_UNAVAILABLE": "schema_unavailable-records-wait-for-a-schema",
    "UNREACHABLE": "unreachable-a-server-did-not-answer",
    "CATALOG_LOST": "catalog_lost-the-catalog-does-not-know-its-tables",
    "DAMAGED": "damaged-a-stored-file-is-missing-or-altered",
    "SPILL_FULL": "spill_full-a-live-feed-has-no-room-left",
    "UNWRITABLE": "unwritable-a-file-could-not-be-written",
    "FENCED_OUT": "fenced_out-another-writer-was-faster",
    "BAD_INPUT": "bad_input-a-server-or-a-person-gave-something-that-cannot-be-understood",
    "MISCONFIGURED": "misconfigured-settings-contradict-themselves-or-the-world",
}
"""Kind of condition, name of a check, or code of an error -> anchor of its section in docs/RUNBOOK.md."""

_SAID: Mapping[Kind, str] = {
    "check": "check failed",
    "run": "run failed",
    "silence": "feed is silent",
    "lag": "records wait",
    "halt": "stands still",
    "unreachable": "does not answer",
    "daemon": "is silent",
}


def section(name: str, otherwise: Kind) -> str:
    """Anchor of the runbook section about a check or a code; that of its kind where it has none of its own."""
    return RUNBOOK_SECTIONS.get(name, RUNBOOK_SECTIONS[otherwise])


@dataclass(frozen=True)
class Links:
    """Where links lead. dagster: address of its UI, empty where there is none. runbook: docs/RUNBOOK.md, as people
    open it."""

    dagster: str
    runbook: str

    def run(self, run_id: str) -> str | None:
        """The page of a run."""
        return f"{self.dagster}/runs/{run_id}" if run_id and self.dagster else None


@dataclass(frozen=True)
class Message:
    """A notice ready to be sent."""

    idempotency_key: str
    title: str
    text: str
    document: Mapping[str, Any]


class Channel(Protocol):
    """A way to people."""

    def deliver(self, message: Message) -> None:
        """Send one message; returns once the other side has taken it. Raises Unreachable."""


def message(notice: Notice, links: Links) -> Message:
    """Write one notice out."""
    title, runbook = _title(notice), f"{links.runbook}#{notice.alerts[0].condition.section}"
    lines = [_line(alert, links) for alert in notice.alerts]
    more = [f"and {notice.more:,} more"] if notice.more else []
    text = "\n".join([title, "", *lines, *more, "", f"What to do: {runbook}"])
    document = {
        "idempotency_key": notice.idempotency_key,
        "state": notice.turn,
        "kind": notice.alerts[0].condition.kind,
        "severity": notice.severity,
        "title": title,
        "text": text,
        "runbook": runbook,
        "count": len(notice.alerts) + notice.more,
        "alerts": [_described(alert, links) for alert in notice.alerts],
    }
    return Message(notice.idempotency_key, title, text, document)


def _title(notice: Notice) -> str:
    condition, count = notice.alerts[0].condition, len(notice.alerts) + notice.more
    said = _SAID[condition.kind] if notice.turn == "firing" else f"recovered ({_SAID[condition.kind]})"
    others = f" and {count - 1:,} more" if count > 1 else ""
    return f"K2: {_named(notice.alerts[0])}{others}: {said}"


def _named(alert: Alert) -> str:
    return " ".join(filter(None, (alert.condition.subject, alert.condition.partition)))


def _line(alert: Alert, links: Links) -> str:
    run = links.run(alert.condition.run_id)
    since = f"since {iso(from_us(alert.since_us))}" if alert.turn == "recovered" else ""
    return "- " + "; ".join(filter(None, (f"{_named(alert)}: {alert.condition.summary}", since, run)))


def _described(alert: Alert, links: Links) -> dict[str, Any]:
    condition = alert.condition
    return {
        "idempotency_key": alert.idempotency_key,
        "subject": condition.subject,
        "partition": condition.partition or None,
        "severity": condition.severity,
        "summary": condition.summary,
        "since": iso(from_us(alert.since_us)),
        "at": iso(from_us(alert.at_us)),
        "run_id": condition.run_id or None,
        "run_url": links.run(condition.run_id),
    }
