"""The keys of a home: who holds them, what they may do, how long. Only digests are kept; a secret is shown once.

Belongs here: the file of keys and the question whether a secret is one of them. Does not: HTTP, which asks it.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from k2_core.errors import BadInput, Misconfigured, NotFound
from k2_resources import clock

LOG = logging.getLogger("k2.api")
Scope = Literal["read", "sql", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
HOME = "home"
"""Holder of the plain key in K2_HOME/api.key, who may do everything."""
LIVE_KEYS_MAX = 2
"""Keys of one holder that work at the same time: the old one and its successor while a rotation lasts."""
CHECK_SECONDS = 1.0
"""How often a running server looks whether the files of keys have changed: a revoked key works so much longer."""
SECRET_BYTES = 32
"""Random bytes of a secret: too many to guess, so one fast digest of it is as safe as a slow one."""
_HOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_State = Literal["live", "expired", "revoked"]


class Key(BaseModel):
    """What is kept of one key. sha256: hex digest of the whole secret. rate_per_minute: None = the setting's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    holder: str
    scopes: tuple[Scope, ...]
    sha256: str = Field(pattern="^[0-9a-f]{64}$", repr=False)
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    rate_per_minute: int | None = Field(None, gt=0)

    def state(self, at: datetime) -> _State:
        """Whether the key works at an instant, and why not."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= at else "live"


class KeyFile(BaseModel):
    """The content of K2_HOME/api-keys.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...] = ()


def read_keys(file: Path) -> tuple[Key, ...]:
    """Read the keys of a home; none when it has no file of them. Raises Misconfigured."""
    try:
        return KeyFile.model_validate_json(file.read_bytes()).keys
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        places = [".".join(map(str, e["loc"])) for e in error.errors()] if isinstance(error, ValidationError) else error
        raise Misconfigured(
            f"{file} is no list of keys: {places}; restore it, or delete it and make new keys"
        ) from None


def create_key(
    file: Path,
    holder: str,
    scopes: Sequence[Scope],
    *,
    rate_per_minute: int | None = None,
    lifetime: timedelta | None = None,
) -> tuple[Key, str]:
    """Make a key and give it with its secret, which nothing keeps. Raises BadInput."""
    if not _HOLDER.fullmatch(holder) or holder == HOME:
        raise BadInput(f"{holder!r} cannot hold a key: 1 to 64 letters, digits, `.`, `_` or `-`, and not {HOME!r}")
    key, secret = _minted(holder, scopes, rate_per_minute, lifetime)
    with _edited(file) as edit:
        edit(lambda keys: (*_with_room(keys, holder), key))
    return key, secret


def rotate_key(file: Path, holder: str, keep: timedelta) -> tuple[Key, str]:
    """Make the successor of a holder's key; the old one works on for `keep`. Raises NotFound, BadInput."""
    with _edited(file) as edit:
        keys = edit(lambda keys: keys)
        live = _live(keys, holder)
        if not live:
            raise NotFound(f"{holder} holds no key that works; see `k2 keys list`")
        old = live[-1]
        key, secret = _minted(holder, old.scopes, old.rate_per_minute, None)
        ending = old.model_copy(update={"expires_at": _soonest(old.expires_at, clock.now() + keep)})
        edit(lambda keys: (*(ending if k.id == old.id else k for k in _with_room(keys, holder)), key))
    return key, secret


def rotate_home_key(file: Path, plain: Path, keep: timedelta) -> None:
    """Put a new secret into the plain file of a home; the old one works on for `keep`. Raises BadInput, NotFound."""
    try:
        old = plain.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise NotFound(f"{plain} does not exist; `k2 up` and `k2 serve` make it") from None
    at = clock.now()
    ending = _home_key(old).model_copy(update={"id": f"{HOME}-{secrets.token_hex(4)}", "expires_at": at + keep})
    with _edited(file) as edit:
        if len(_live(edit(lambda keys: keys), HOME)) + 1 >= LIVE_KEYS_MAX:
            raise BadInput(f"the key before this one still works; `k2 keys revoke {HOME}` ends it")
        edit(lambda keys: (*keys, ending))
        replace_file(plain, f"{secrets.token_urlsafe(SECRET_BYTES)}\n")


def revoke_keys(file: Path, name: str) -> tuple[Key, ...]:
    """End the key of an id, or every key of a holder. Returns those that worked until now. Raises NotFound."""
    with _edited(file) as edit:
        at = clock.now()
        before = edit(lambda keys: keys)
        ended = tuple(k for k in before if name in (k.id, k.holder) and k.state(at) == "live")
        if not ended:
            raise NotFound(f"no key that works has the id or the holder {name}; see `k2 keys list`")
        edit(lambda keys: tuple(k.model_copy(update={"revoked_at": at}) if k in ended else k for k in keys))
    return ended


class KeyRing:
    """Tells whose secret it is that a request brings; follows the files of keys while it lives."""

    def __init__(self, plain: Path, file: Path) -> None:
        """plain: the home's own key. Raises Misconfigured when either file cannot be understood now."""
        self._plain, self._file = plain, file
        self._signature = self._look()
        self._keys = self._read()
        self._looked_at = time.monotonic()

    def find(self, secret: str) -> Key | None:
        """The key of a secret; None when there is none that works now."""
        if time.monotonic() - self._looked_at >= CHECK_SECONDS:
            self._refresh()
        digest, at, found = digest_of(secret), clock.now(), None
        for key in self._keys:  # every one: how long it takes says nothing about which
            if hmac.compare_digest(key.sha256, digest) and key.state(at) == "live":
                found = key
        return found

    def _refresh(self) -> None:
        self._looked_at = time.monotonic()
        signature = self._look()
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._keys = self._read()
        except Misconfigured as error:
            self._keys = ()  # a list nobody can read may be the one that revokes
            LOG.error("no key is accepted: %s", error)

    def _look(self) -> tuple[object, ...]:
        return _signature(self._plain), _signature(self._file)

    def _read(self) -> tuple[Key, ...]:
        try:
            secret = self._plain.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            secret = ""
        except (OSError, UnicodeDecodeError):
            raise Misconfigured(f"{self._plain} cannot be read as text; delete it and a new one is made") from None
        return (*read_keys(self._file), *([_home_key(secret)] if secret else ()))


def digest_of(secret: str) -> str:
    """The digest by which a secret is known."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def replace_file(file: Path, text: str) -> None:
    """Replace a file at once and durably; only its owner may read it."""
    draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    draft.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _minted(
    holder: str, scopes: Sequence[Scope], rate_per_minute: int | None, lifetime: timedelta | None
) -> tuple[Key, str]:
    at, key_id = clock.now(), secrets.token_hex(4)
    secret = f"k2_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    ordered = tuple(scope for scope in SCOPES if scope in scopes)
    expires = None if lifetime is None else at + lifetime
    key = Key(
        id=key_id, holder=holder, scopes=ordered, sha256=digest_of(secret), created_at=at,
        expires_at=expires, rate_per_minute=rate_per_minute,
    )  # fmt: skip
    return key, secret


def _home_key(secret: str) -> Key:
    return Key(id=HOME, holder=HOME, scopes=SCOPES, sha256=digest_of(secret), created_at=clock.now())


def _with_room(keys: tuple[Key, ...], holder: str) -> tuple[Key, ...]:
    """The keys, when the holder may have one more. Raises BadInput."""
    live = _live(keys, holder)
    if len(live) >= LIVE_KEYS_MAX:
        ids = ", ".join(key.id for key in live)
        raise BadInput(f"{holder} holds {len(live)} keys that work ({ids}); end one with `k2 keys revoke ID`")
    return keys


def _live(keys: Sequence[Key], holder: str) -> list[Key]:
    at = clock.now()
    return [key for key in keys if key.holder == holder and key.state(at) == "live"]


def _soonest(first: datetime | None, second: datetime) -> datetime:
    return second if first is None else min(first, second)


def _signature(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


Edit = Callable[[Callable[[tuple[Key, ...]], tuple[Key, ...]]], tuple[Key, ...]]


@contextmanager
def _edited(file: Path) -> Iterator[Edit]:
    """Change the file of keys while nobody else does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)

    def edit(change: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> tuple[Key, ...]:
        before = read_keys(file)
        after = change(before)
        if after != before:
            replace_file(file, KeyFile(keys=after).model_dump_json(indent=2) + "\n")
        return after

    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield edit
    finally:
        os.close(lock)
