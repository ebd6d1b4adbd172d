"""The schema registry as K2 asks it, through Confluent's own client: any compatible server will do."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.common._httpx_compat import httpx
from confluent_kafka.schema_registry.error import SchemaRegistryError

from k2_core.errors import BadInput, SchemaUnavailable, Unreachable

_ANSWER_SECONDS = 10.0
_RETRIES = 3
_RETRY_MILLISECONDS = 100
_RETRY_MILLISECONDS_MAX = 1_000
"""A registry that restarts is back within a second or two; longer is for the caller to say."""

SUBJECT_NOT_FOUND = "40401"
SCHEMA_NOT_FOUND = "40403"
_REFUSED = (409, 422)
"""HTTP statuses of a schema that is incompatible or is not one."""

Answer = TypeVar("Answer")


class Registry:
    """One schema registry. Safe to share between threads; connects when first asked."""

    def __init__(self, url: str, *, kept: Path | None = None) -> None:
        """kept: folder of the schemas this registry has given before, for the times when it does not answer."""
        self.url = url
        self._kept = kept
        # loading the certificates of the world takes 30 ms, and without TLS there is none to check
        trust = {} if "https:" in url else {"ssl.ca.location": False}
        self._client = SchemaRegistryClient(
            {
                "url": url,
                **trust,
                "timeout": _ANSWER_SECONDS,
                "max.retries": _RETRIES,
                "retries.wait.ms": _RETRY_MILLISECONDS,
                "retries.max.wait.ms": _RETRY_MILLISECONDS_MAX,
            }
        )
        weakref.finalize(self, self._client.close)

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """Register an Avro schema and give its id; the same schema again gives the same id.

        Raises BadInput when the registry refuses it (invalid, or incompatible with what the subject holds),
        Unreachable.
        """
        return int(self._ask(f"register {subject}", lambda: self._client.register_schema(subject, _avro(schema))))

    def schema(self, schema_id: int) -> dict[str, Any] | None:
        """Give the Avro schema of an id, or None only if the registry says that the id does not exist.

        A found schema is cached: an id never changes its meaning. A schema that is no Avro record comes back as
        `{"type": ...}`, which matches no record of ours. Raises Unreachable, SchemaUnavailable.
        """
        try:
            found = self._ask(f"schema {schema_id}", lambda: self._client.get_schema(schema_id))
        except _Absent as absent:
            if absent.code == SCHEMA_NOT_FOUND:
                return None
            raise
        except Unreachable:
            if (kept := self._recall(schema_id)) is not None:
                return kept
            raise
        if (found.schema_type or "AVRO") != "AVRO":
            return {"type": found.schema_type}
        schema = _record(schema_id, found.schema_str)
        self._keep(schema_id, schema)
        return schema

    def knows_subject(self, subject: str) -> bool:
        """Tell whether the subject has at least one version. Raises Unreachable, SchemaUnavailable."""
        try:
            return bool(self._ask(f"subject {subject}", lambda: self._client.get_versions(subject)))
        except _Absent as absent:
            if absent.code == SUBJECT_NOT_FOUND:
                return False
            raise

    def close(self) -> None:
        """Close its connections; the registry cannot be asked afterwards."""
        self._client.close()

    def _keep(self, schema_id: int, schema: dict[str, Any]) -> None:
        """Write a schema once. Only a hint for bad days: a folder that takes nothing is no trouble."""
        if self._kept is None or (file := self._file(self._kept, schema_id)).exists():
            return
        unfinished = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}")
        with suppress(OSError):
            self._kept.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(schema))
            unfinished.replace(file)

    def _recall(self, schema_id: int) -> dict[str, Any] | None:
        """A schema given before; None where there is none that can be read."""
        if self._kept is None:
            return None
        try:
            return _record(schema_id, self._file(self._kept, schema_id).read_text())
        except (OSError, SchemaUnavailable):
            return None

    @staticmethod
    def _file(folder: Path, schema_id: int) -> Path:
        return folder / f"{schema_id}.json"

    def _ask(self, what: str, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except SchemaRegistryError as error:
            said = f"{self.url}: {what}: HTTP {error.http_status_code}, {error.error_code}: {error.error_message}"
            if error.http_status_code in _REFUSED:
                raise BadInput(said) from error
            if error.http_status_code == httpx.codes.NOT_FOUND:
                raise _Absent(said, str(error.error_code)) from error
            raise SchemaUnavailable(said) from error
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.url}: {what}: {error or type(error).__name__}. Is the registry up?") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # an answer the client cannot read: whatever listens there is no registry
            raise SchemaUnavailable(f"{self.url}: {what}: not an answer of a schema registry: {error}") from error


class _Absent(SchemaUnavailable):
    """A 404; only its code tells whether the thing is absent or the address is wrong."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def _avro(schema: dict[str, Any]) -> Schema:
    return Schema(json.dumps(schema), "AVRO")


def _record(schema_id: int, text: str | None) -> dict[str, Any]:
    try:
        document = json.loads(text or "")
    except ValueError as error:
        raise SchemaUnavailable(f"schema {schema_id}: the registry's text is not JSON: {error}") from error
    return document if isinstance(document, dict) else {"type": document}
