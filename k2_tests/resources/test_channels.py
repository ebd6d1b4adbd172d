"""Webhook and mail against servers that take, refuse, hang up, and are not there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import SecretStr

from k2_core.alerts import Condition
from k2_core.errors import Misconfigured, Unreachable
from k2_core.notices import Links, Message, message
from k2_core.watch import Seen, Watch
from k2_resources.channels import deliver_due, links_of, open_channels, parse_watch, write_watch
from k2_resources.mail import Mail
from k2_resources.settings import Settings
from k2_resources.webhook import Webhook
from k2_tests.receivers import mail_server, webhook

WRONG = Condition("halt", "market.trades[3]", "PARTITION_PAUSED: a storm of dead letters, é", "partition_paused")
LINKS = Links("http://dagster", "docs/RUNBOOK.md")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def watch_of(*channels: str) -> Watch:
    return Watch().noted({WRONG.key: WRONG}, Seen(runs_us=7), channels, 1_000_000)


def one() -> Message:
    return message(watch_of("webhook").outbox.entries[0].notice, LINKS)


def test_a_post_carries_the_notice_its_key_and_the_token() -> None:
    with webhook() as posts:
        Webhook(posts.url, "secret").deliver(one())
    assert posts.taken == [dict(one().document)]
    assert posts.headers[0]["Idempotency-Key"] == one().idempotency_key
    assert posts.headers[0]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("status", [301, 400, 429, 500, 503])
def test_any_other_answer_of_a_webhook_is_no_receipt(status: int) -> None:
    with webhook() as posts:
        posts.status = status
        with pytest.raises(Unreachable, match=f"answered {status}"):
            Webhook(posts.url, "secret").deliver(one())


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/hook", "no address", "ftp://127.0.0.1/"])
def test_a_webhook_that_is_not_there_is_unreachable_and_keeps_the_token(url: str) -> None:
    with pytest.raises(Unreachable) as caught:
        Webhook(url, "secret", 1.0).deliver(one())
    assert "secret" not in str(caught.value)


def test_a_mail_carries_the_notice_and_its_key_in_the_message_id() -> None:
    with mail_server() as mails:
        Mail("127.0.0.1", mails.port, "k2@example.com", ("desk@example.com", "night@example.com")).deliver(one())
    (mail,) = mails.taken
    assert mail["Subject"] == "K2: market.trades[3]: stands still"
    assert mail["Message-ID"] == f"<{one().idempotency_key}@k2>"
    assert mail["X-K2-Idempotency-Key"] == one().idempotency_key
    assert mail["To"] == "desk@example.com, night@example.com"
    text = mail.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert "a storm of dead letters, é" in text.decode()
    assert "What to do: docs/RUNBOOK.md#partition_paused" in text.decode()


def test_taken_for_one_recipient_is_taken_and_refused_by_all_is_not() -> None:
    with mail_server() as mails:
        mails.refuses = {"gone@example.com"}
        mail = Mail("127.0.0.1", mails.port, "k2@example.com", ("gone@example.com", "desk@example.com"))
        mail.deliver(one())
        assert len(mails.taken) == 1
        with pytest.raises(Unreachable, match="no such mailbox"):
            replace(mail, recipients=("gone@example.com",)).deliver(one())


def test_a_mail_server_that_hangs_up_or_is_not_there_is_unreachable() -> None:
    with mail_server() as mails:
        mails.is_down = True
        mail = Mail("127.0.0.1", mails.port, "k2@example.com", ("desk@example.com",), timeout_seconds=2)
        with pytest.raises(Unreachable, match="going away"):
            mail.deliver(one())
    with pytest.raises(Unreachable):
        replace(mail, port=1).deliver(one())


def test_a_server_without_encryption_gets_no_password() -> None:
    with mail_server() as mails:
        mail = Mail("127.0.0.1", mails.port, "k2@example.com", ("desk@example.com",), "k2", "secret", starttls=True)
        with pytest.raises(Unreachable, match="STARTTLS"):
            mail.deliver(one())
    assert mails.taken == []


def test_what_one_channel_refuses_the_other_still_gets_and_nobody_gets_twice() -> None:
    with webhook() as posts, mail_server() as mails:
        posts.status = 500
        channels = {
            "webhook": Webhook(posts.url),
            "mail": Mail("127.0.0.1", mails.port, "k2@example.com", ("desk@example.com",)),
        }
        outbox = deliver_due(watch_of("webhook", "mail").outbox, channels, LINKS)
        outbox = deliver_due(outbox, channels, LINKS)
    assert (posts.asked, len(mails.taken)) == (1, 1)
    assert outbox.entries[0].waiting == ("webhook",)
    assert outbox.pauses["webhook"].reason == "webhook: answered 500, expected 2xx"


def test_settings_name_the_channels() -> None:
    assert open_channels(Settings()) == {}
    both = Settings(
        alert_webhook_url="http://hook", alert_webhook_token=SecretStr("secret"), alert_smtp="[::1]:25",
        alert_mail_to=" a@b.c, ,d@e.f", alert_timeout_seconds=2,
    )  # fmt: skip
    assert open_channels(both) == {
        "webhook": Webhook("http://hook", "secret", 2.0),
        "mail": Mail("::1", 25, "k2@localhost", ("a@b.c", "d@e.f"), timeout_seconds=2.0),
    }
    assert "secret" not in repr(open_channels(both)) + repr(both)
    for wrong in ({"alert_smtp": "host"}, {"alert_smtp": "host:25"}, {"alert_smtp": ":25", "alert_mail_to": "a@b.c"}):
        with pytest.raises(Misconfigured, match="expected host:port"):
            open_channels(Settings(**wrong))  # type: ignore[arg-type]


def test_links_lead_to_the_ui_that_people_open() -> None:
    assert links_of(Settings(dagster_url="http://inside:3000/")).dagster == "http://inside:3000"
    inside = Settings(dagster_url="http://inside:3000", alert_dagster_url="https://dagster.example.com")
    assert links_of(inside).run("r") == "https://dagster.example.com/runs/r"


@pytest.mark.parametrize("text", [None, "", "junk", "[]", '{"watched": 3}'])
def test_a_text_that_is_no_watch_is_one_that_knows_nothing(text: str | None) -> None:
    assert parse_watch(text) == Watch()


def test_a_watch_comes_back_as_it_was_written() -> None:
    watch = watch_of("webhook", "mail")
    watch = replace(watch, outbox=watch.outbox.failed("mail", "no", 5))
    assert parse_watch(write_watch(watch)) == watch
