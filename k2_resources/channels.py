"""The ways to people that the settings name, and the round that gives each of them what it is due."""

from __future__ import annotations

import time
from collections.abc import Mapping

import structlog
from pydantic import SecretStr, TypeAdapter, ValidationError

from k2_core.errors import Misconfigured, Unreachable
from k2_core.notices import Channel, Links, message
from k2_core.outbox import Outbox
from k2_core.watch import Watch
from k2_resources import clock
from k2_resources.mail import Mail
from k2_resources.settings import Settings
from k2_resources.webhook import Webhook

ROUND_SECONDS_MAX = 5.0
"""No delivery of a channel begins later in a round: a tick is killed after a minute, and what it did is forgotten."""

log = structlog.get_logger(__name__)
_WATCH = TypeAdapter(Watch)


def open_channels(settings: Settings) -> dict[str, Channel]:
    """Every channel that is set up, by name; connects to nothing. Raises Misconfigured."""
    channels: dict[str, Channel] = {}
    seconds = settings.alert_timeout_seconds
    if settings.alert_webhook_url:
        channels["webhook"] = Webhook(settings.alert_webhook_url, _secret(settings.alert_webhook_token), seconds)
    if settings.alert_smtp:
        channels["mail"] = _mail(settings, settings.alert_smtp)
    return channels


def links_of(settings: Settings) -> Links:
    """Where the links of a notice lead now."""
    return Links((settings.alert_dagster_url or settings.dagster() or "").rstrip("/"), settings.alert_runbook_url)


def deliver_due(outbox: Outbox, channels: Mapping[str, Channel], links: Links) -> Outbox:
    """Give each channel what it is due, in order, until it fails. What comes back must be kept: it says what is done.

    A crash before it is kept means one more delivery, with the same idempotency key.
    """
    outbox = outbox.only(channels)
    for name, channel in channels.items():
        began = time.monotonic()
        for entry in outbox.due(name, clock.now_us()):
            if time.monotonic() - began > ROUND_SECONDS_MAX:
                break
            key = entry.notice.idempotency_key
            try:
                channel.deliver(message(entry.notice, links))
            except Unreachable as error:
                log.warning("notice not delivered", channel=name, key=key, reason=str(error))
                outbox = outbox.failed(name, str(error), clock.now_us())
                break
            log.info("notice delivered", channel=name, key=key)
            outbox = outbox.sent(name, key)
    return outbox


def parse_watch(text: str | None) -> Watch:
    """Read a watch back; one that knows nothing where the text is none: what is wrong is then told anew."""
    try:
        return _WATCH.validate_json(text or "{}")
    except ValidationError:
        return Watch()


def write_watch(watch: Watch) -> str:
    """Write a watch as one text."""
    return _WATCH.dump_json(watch, exclude_defaults=True).decode()


def _mail(settings: Settings, server: str) -> Mail:
    host, _, port = server.rpartition(":")
    recipients = tuple(filter(None, (name.strip() for name in settings.alert_mail_to.split(","))))
    if not host or not port.isdigit() or not recipients:
        raise Misconfigured(
            f"K2_ALERT_SMTP={server!r}, K2_ALERT_MAIL_TO={settings.alert_mail_to!r}: "
            "expected host:port, and at least one recipient"
        )
    user, password = settings.alert_smtp_user, _secret(settings.alert_smtp_password)
    return Mail(
        host.strip("[]"),
        int(port),
        settings.alert_mail_from,
        recipients,
        user=user,
        password=password,
        starttls=settings.alert_smtp_starttls,
        timeout_seconds=settings.alert_timeout_seconds,
    )


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()
