"""Alerts by mail: one message per notice, through an SMTP server."""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime

import structlog

from k2_core.errors import Unreachable
from k2_core.notices import Message
from k2_resources import clock

IDEMPOTENCY_HEADER = "X-K2-Idempotency-Key"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Mail:
    """One mail server and who gets its mails. password: goes to the server only, and only after STARTTLS if asked."""

    host: str
    port: int
    sender: str
    recipients: tuple[str, ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    starttls: bool = False
    timeout_seconds: float = 5.0

    def deliver(self, message: Message) -> None:
        """Hand one message to the server; taken for one recipient is taken. Raises Unreachable."""
        try:
            with smtplib.SMTP(self.host, self.port, timeout=self.timeout_seconds) as server:
                if self.starttls:
                    server.starttls(context=ssl.create_default_context())
                if self.user is not None:
                    server.login(self.user, self.password or "")
                refused = server.send_message(self._mail(message))
        except (smtplib.SMTPException, OSError) as error:
            raise Unreachable(f"mail: {self.host}:{self.port}: {type(error).__name__}: {error}") from error
        if refused:
            # sent again, the others would get it twice
            log.warning("mail refused for some recipients", refused=sorted(refused), key=message.idempotency_key)

    def _mail(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        mail["From"], mail["To"] = self.sender, ", ".join(self.recipients)
        mail["Subject"] = " ".join(message.title.split())
        mail["Date"] = format_datetime(clock.now())
        # mail servers and readers drop a second message of the same id
        mail["Message-ID"] = f"<{message.idempotency_key}@k2>"
        mail[IDEMPOTENCY_HEADER] = message.idempotency_key
        mail.set_content(message.text)
        return mail
