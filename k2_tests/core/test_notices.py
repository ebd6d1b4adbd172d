"""What people read, and that every link into the runbook leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from k2_core.alerts import KINDS, Condition, Watched, grouped, turned
from k2_core.errors import K2Error
from k2_core.notices import RUNBOOK_SECTIONS, Links, Message, message, section

RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "RUNBOOK.md"
LINKS = Links("http://dagster:3000", "https://here/docs/RUNBOOK.md")


def anchors() -> set[str]:
    """Anchors of the runbook's headings, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def told(*conditions: Condition, recovered: bool = False) -> Message:
    changes = {c.key: c for c in conditions}
    watched, alerts = turned(Watched(), changes, 1_700_000_000_000_000)
    if recovered:
        _, alerts = turned(watched, dict.fromkeys(changes), 1_700_000_060_000_000)
    (notice,) = grouped(alerts)
    return message(notice, LINKS)


def test_every_section_is_in_the_runbook() -> None:
    assert set(RUNBOOK_SECTIONS.values()) <= anchors()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_section(kind: str) -> None:
    assert kind in RUNBOOK_SECTIONS


def test_every_code_that_has_a_section_of_the_runbook_leads_there() -> None:
    def codes(error: type[K2Error]) -> set[str]:
        return {error.code}.union(*map(codes, error.__subclasses__()))

    headed = {code for code in codes(K2Error) if any(a.startswith(f"{code.lower()}-") for a in anchors())}
    assert headed - set(RUNBOOK_SECTIONS) == set()
    assert section("NO_SUCH_CODE", "run") == RUNBOOK_SECTIONS["run"]


def test_a_notice_names_what_where_and_what_to_do() -> None:
    gaps = section("sequence_gaps", "check")
    days = [
        Condition("check", "market_data.trades sequence_gaps", "1 open gaps", gaps, partition=day, run_id="r1")
        for day in ("2024-08-08", "2024-08-09")
    ]
    said = told(*days)
    assert said.title == "K2: market_data.trades sequence_gaps 2024-08-08 and 1 more: check failed"
    assert "http://dagster:3000/runs/r1" in said.text
    assert said.text.endswith(f"https://here/docs/RUNBOOK.md#{gaps}")
    document = said.document
    assert (document["state"], document["kind"], document["severity"]) == ("firing", "check", "error")
    assert document["count"] == 2
    assert [a["partition"] for a in document["alerts"]] == ["2024-08-08", "2024-08-09"]
    assert {a["run_url"] for a in document["alerts"]} == {"http://dagster:3000/runs/r1"}
    keys = {document["idempotency_key"], *(a["idempotency_key"] for a in document["alerts"])}
    assert len(keys) == 3


def test_a_recovery_says_since_when_it_was_wrong_and_has_a_key_of_its_own() -> None:
    silent = Condition("silence", "binance-trades", "nothing for more than 900 s", section("silence", "silence"))
    fired, over = told(silent), told(silent, recovered=True)
    assert over.document["state"] == "recovered"
    assert over.title == "K2: binance-trades: recovered (feed is silent)"
    assert "since 2023-11-14T22:13:20.000000Z" in over.text
    assert fired.idempotency_key != over.idempotency_key
    assert "run_url" in over.document["alerts"][0]
    assert over.document["alerts"][0]["run_url"] is None
