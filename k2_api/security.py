"""Who may ask: one key, kept in a file that only its owner reads."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader

from k2_api.problems import Problem
from k2_core.errors import Misconfigured

HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="The key in K2_HOME/api.key.")
SECRET_BYTES = 32


def ensure_secret(path: Path) -> str:
    """Read the secret of a file, or make it: random, mode 0600, never seen half written. Raises Misconfigured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _create(path, secrets.token_urlsafe(SECRET_BYTES))
    secret = path.read_text(encoding="utf-8").strip()
    if not secret:
        raise Misconfigured(f"{path} is empty, expected a secret; delete the file and a new one is made")
    return secret


def require_key(request: Request, key: Annotated[str | None, Security(HEADER)]) -> None:
    """Let a request with the right key pass. Raises Problem 401 without a key and 403 with a wrong one."""
    if not key:
        raise Problem(401, "UNAUTHORIZED", "the X-API-Key header is missing", headers={"WWW-Authenticate": "ApiKey"})
    if not hmac.compare_digest(key.encode(), request.app.state.api_key.encode()):
        raise Problem(403, "FORBIDDEN", "the API key is not valid")


def _create(path: Path, secret: str) -> None:
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{secret}\n")
    try:
        os.link(draft, path)  # unlike a rename, it never replaces the key another process just made
    except FileExistsError:
        pass
    finally:
        draft.unlink()
