"""Keys: what they may do, how they are kept, replaced and ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx2 as httpx
import pytest
from fastapi import Depends

from k2_api.app import create_app
from k2_api.keys import KeyRing, create_key, digest_of, read_keys, revoke_keys, rotate_home_key, rotate_key
from k2_api.security import require_scope
from k2_core.errors import BadInput, Misconfigured, NotFound
from k2_resources.settings import Settings
from k2_tests.api.homes import serving, settings_of

REVOKED_SECONDS_MAX = 5.0
ADMINS = "/v1/for-admins"


@dataclass(frozen=True)
class Home:
    settings: Settings
    client: httpx.Client

    def get(self, path: str, secret: str) -> httpx.Response:
        return httpx.get(self.client.base_url.join(path), headers={"X-API-Key": secret}, trust_env=False)

    def status(self, secret: str, path: str = "/v1/symbols") -> int:
        return self.get(path, secret).status_code

    def await_status(self, secret: str, status: int) -> float:
        """Seconds until a secret is answered with a status."""
        since = time.monotonic()
        while self.status(secret) != status:
            assert time.monotonic() - since < 60
            time.sleep(0.05)
        return time.monotonic() - since


def _nothing() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    settings = settings_of(tmp_path_factory.mktemp("keys"))
    app = create_app(settings)
    app.add_api_route(ADMINS, _nothing, dependencies=[Depends(require_scope("admin"))])
    with serving(settings, app) as client:
        yield Home(settings, client)


def test_a_key_made_while_the_server_runs_works_and_ends_within_seconds(home: Home) -> None:
    file = home.settings.api_keys_file
    kept, secret = create_key(file, "desk", ["read"])
    _, other = create_key(file, "desk", ["read"])
    assert home.await_status(secret, 200) < REVOKED_SECONDS_MAX
    assert [key.id for key in revoke_keys(file, kept.id)] == [kept.id]
    assert home.await_status(secret, 403) < REVOKED_SECONDS_MAX
    assert home.status(other) == 200, "the holder's other key goes on"


def test_a_key_does_what_its_scopes_say(home: Home) -> None:
    file = home.settings.api_keys_file
    _, reader = create_key(file, "reader", ["read"])
    _, admin = create_key(file, "admin", ["admin"])
    home.await_status(reader, 200)
    told = home.get(ADMINS, reader)
    assert (told.status_code, told.json()["code"]) == (403, "FORBIDDEN")
    assert home.status(admin, ADMINS) == 200
    assert home.status(admin) == 403
    everything = home.client.headers["X-API-Key"]
    assert home.status(everything, ADMINS) == home.status(everything) == 200


def test_the_same_key_works_as_a_bearer_and_nothing_else_does(home: Home) -> None:
    key = home.client.headers["X-API-Key"]

    def status(**headers: str) -> int:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.get(home.client.base_url.join("/v1/symbols"), headers=sent, trust_env=False).status_code

    assert status(Authorization=f"Bearer {key}") == status(Authorization=f"bearer  {key}") == 200
    assert status(Authorization=f"Basic {key}") == status(Authorization=key) == 401
    assert status(Authorization=f"Bearer {key}x") == status(Authorization=f"Bearer {key[:-1]}") == 403
    assert status(X_API_Key=digest_of(key)) == status(X_API_Key="home") == status(X_API_Key=f"{key} {key}") == 403
    assert status(X_API_Key="wrong", Authorization=f"Bearer {key}") == 403


def test_who_has_no_key_is_told_how_to_bring_one(home: Home) -> None:
    told = httpx.get(home.client.base_url.join("/v1/no/such/path"), trust_env=False)
    assert (told.status_code, told.json()["code"]) == (401, "UNAUTHORIZED")
    assert told.headers["WWW-Authenticate"].startswith("Bearer ")


def test_no_file_holds_a_secret_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "api-keys.json"
    key, secret = create_key(file, "desk", ["read", "read", "sql"], rate_per_minute=7, lifetime=timedelta(days=1))
    assert file.stat().st_mode & 0o777 == 0o600
    kept = file.read_text()
    assert secret not in kept and secret.rpartition("_")[2] not in kept and digest_of(secret) in kept
    assert read_keys(file) == (key,)
    assert (key.scopes, key.rate_per_minute) == (("read", "sql"), 7)
    assert digest_of(secret) not in repr(key)


def test_a_rotation_lets_two_keys_work_and_never_three(tmp_path: Path) -> None:
    file = tmp_path / "api-keys.json"
    _, old = create_key(file, "desk", ["sql"], rate_per_minute=7)
    successor, new = rotate_key(file, "desk", timedelta(hours=1))
    ring = KeyRing(tmp_path / "api.key", file)
    assert [(k.scopes, k.rate_per_minute) for k in (ring.find(old), ring.find(new)) if k] == [(("sql",), 7)] * 2
    for attempt in (lambda: rotate_key(file, "desk", timedelta()), lambda: create_key(file, "desk", ["read"])):
        with pytest.raises(BadInput, match="k2 keys revoke"):
            attempt()
    revoke_keys(file, read_keys(file)[0].id)
    _, newest = rotate_key(file, "desk", timedelta())
    ring = KeyRing(tmp_path / "api.key", file)
    assert [ring.find(secret) is not None for secret in (old, new, newest)] == [False, False, True]
    assert [key.id for key in read_keys(file)][1] == successor.id, "what ended is kept as a record"


def test_the_key_of_a_home_is_rotated_in_its_file(tmp_path: Path) -> None:
    plain, file = tmp_path / "api.key", tmp_path / "api-keys.json"
    plain.write_text("first-secret\n")
    ring = KeyRing(plain, file)
    rotate_home_key(file, plain, timedelta(hours=1))
    second = plain.read_text().strip()
    assert plain.stat().st_mode & 0o777 == 0o600
    with pytest.raises(BadInput):
        rotate_home_key(file, plain, timedelta(hours=1))
    ring = KeyRing(plain, file)
    assert [ring.find(secret) is not None for secret in ("first-secret", second)] == [True, True]
    revoke_keys(file, "home")
    ring = KeyRing(plain, file)
    assert [ring.find(secret) is not None for secret in ("first-secret", second)] == [False, True]


def test_a_key_ends_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "api-keys.json"
    _, secret = create_key(file, "desk", ["read"], lifetime=timedelta(seconds=0.5))
    ring = KeyRing(tmp_path / "api.key", file)
    while ring.find(secret) is not None:
        time.sleep(0.05)
    assert read_keys(file)[0].revoked_at is None


@pytest.mark.parametrize("holder", ["", "home", "a b", "-a", "é", "x" * 65, "a\n", "../x"])
def test_a_holder_has_a_plain_name(tmp_path: Path, holder: str) -> None:
    with pytest.raises(BadInput):
        create_key(tmp_path / "api-keys.json", holder, ["read"])
    assert not (tmp_path / "api-keys.json").exists()


def test_nobody_is_revoked_twice(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        revoke_keys(tmp_path / "api-keys.json", "nobody")


@pytest.mark.parametrize("content", ["", "[]", '{"keys": [{"id": "x"}]}', '{"keys": 1}', "\0"])
def test_a_spoilt_list_of_keys_is_refused_at_the_start_and_accepts_nobody_later(tmp_path: Path, content: str) -> None:
    plain, file = tmp_path / "api.key", tmp_path / "api-keys.json"
    plain.write_text("first-secret\n")
    ring = KeyRing(plain, file)
    assert ring.find("first-secret") is not None
    file.write_text(content)
    with pytest.raises(Misconfigured, match=r"api-keys\.json"):
        KeyRing(plain, file)
    since = time.monotonic()
    while ring.find("first-secret") is not None:
        assert time.monotonic() - since < REVOKED_SECONDS_MAX
        time.sleep(0.05)
