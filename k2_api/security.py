"""What routes ask of a key the guard has found, and the secrets a home makes for itself."""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from k2_api.guard import unauthorized
from k2_api.keys import SECRET_BYTES, Key, Scope
from k2_api.problems import Problem
from k2_core.errors import Misconfigured

HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="A key of `k2 keys`, or that in K2_HOME/api.key.")
BEARER = HTTPBearer(auto_error=False, description="The same key, as `Authorization: Bearer`.")


def require_scope(scope: Scope) -> Callable[..., Awaitable[None]]:
    """Make the dependency of routes that a key needs a scope for: it raises Problem 401, or 403 without the scope."""

    async def allowed(
        request: Request,
        _key: Annotated[str | None, Security(HEADER)],
        _bearer: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)],
    ) -> None:
        key: Key | None = getattr(request.state, "key", None)
        if key is None:
            raise unauthorized()
        if scope not in key.scopes:
            raise Problem(403, "FORBIDDEN", f"the key has no scope {scope}")

    return allowed


require_key = require_scope("read")


def ensure_secret(path: Path) -> str:
    """Read the secret of a file, or make it: random, mode 0600, never seen half written. Raises Misconfigured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _create(path, secrets.token_urlsafe(SECRET_BYTES))
    secret = path.read_text(encoding="utf-8").strip()
    if not secret:
        raise Misconfigured(f"{path} is empty, expected a secret; delete the file and a new one is made")
    return secret


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
