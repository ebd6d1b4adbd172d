"""Subjects, versions, ids and levels in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from k2_resources.registry_server.schemas import Refused, identity_of, unreadable

GLOBAL = ""
"""Stands for all subjects in the table of levels; a subject's name is never empty."""
_TABLES = """
CREATE TABLE IF NOT EXISTS schemas (id INTEGER PRIMARY KEY AUTOINCREMENT, identity TEXT UNIQUE NOT NULL,
    text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS versions (subject TEXT NOT NULL, version INTEGER NOT NULL, schema_id INTEGER NOT NULL,
    PRIMARY KEY (subject, version), UNIQUE (subject, schema_id));
CREATE TABLE IF NOT EXISTS levels (subject TEXT PRIMARY KEY, level TEXT NOT NULL);
"""


class SchemaStore:
    """Everything the registry remembers, in one file. Used by one thread; several processes may share the file."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(file, isolation_level=None, timeout=30)
        # FULL: an id that was given out must survive a power cut
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + _TABLES)

    def close(self) -> None:
        self._db.close()

    def register(self, subject: str, text: str) -> int:
        """Add a version unless the subject has this schema. Gives the id; the same for the same schema everywhere."""
        identity = identity_of(text)
        with self._transaction():
            found = self._version_with(subject, identity)
            if found:
                return found[1]
            if reasons := self.conflicts(subject, text, self.versions(subject)):
                raise Refused(409, f"Schema being registered is incompatible with an earlier schema for subject "
                                   f'"{subject}": {"; ".join(reasons)}')  # fmt: skip
            self._db.execute("INSERT OR IGNORE INTO schemas (identity, text) VALUES (?, ?)", (identity, text))
            schema_id = int(self._one("SELECT id FROM schemas WHERE identity = ?", identity)[0])
            latest = self._one("SELECT coalesce(max(version), 0) FROM versions WHERE subject = ?", subject)[0]
            self._db.execute("INSERT INTO versions VALUES (?, ?, ?)", (subject, latest + 1, schema_id))
        return schema_id

    def lookup(self, subject: str, text: str) -> dict[str, Any]:
        """The version of a subject that has this schema."""
        self.existing_versions(subject)
        found = self._version_with(subject, identity_of(text))
        if not found:
            raise Refused(40403, "Schema not found")
        return self.version(subject, found[0])

    def version(self, subject: str, version: int) -> dict[str, Any]:
        """One version that exists."""
        query = "SELECT id, text FROM versions JOIN schemas ON id = schema_id WHERE subject = ? AND version = ?"
        row = self._one(query, subject, version)
        return {"subject": subject, "version": version, "id": row[0], "schema": row[1]}

    def versions(self, subject: str) -> list[int]:
        rows = self._db.execute("SELECT version FROM versions WHERE subject = ? ORDER BY version", (subject,))
        return [row[0] for row in rows]

    def existing_versions(self, subject: str) -> list[int]:
        versions = self.versions(subject)
        if not versions:
            raise Refused(40401, f"Subject '{subject}' not found.")
        return versions

    def subjects(self) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT DISTINCT subject FROM versions ORDER BY subject")]

    def text(self, schema_id: int) -> str:
        row = self._one("SELECT text FROM schemas WHERE id = ?", schema_id)
        if row is None:
            raise Refused(40403, f"Schema {schema_id} not found")
        return str(row[0])

    def uses(self, schema_id: int) -> list[dict[str, Any]]:
        """Every subject and version that has this schema."""
        self.text(schema_id)
        query = "SELECT subject, version FROM versions WHERE schema_id = ? ORDER BY subject, version"
        return [{"subject": s, "version": v} for s, v in self._db.execute(query, (schema_id,))]

    def id_max(self) -> int:
        return int(self._one("SELECT coalesce(max(id), 0) FROM schemas")[0])

    def own_level(self, subject: str) -> str | None:
        row = self._one("SELECT level FROM levels WHERE subject = ?", subject)
        return None if row is None else str(row[0])

    def level(self, subject: str = GLOBAL) -> str:
        """The level that holds for a subject: its own, else the global one, else BACKWARD."""
        return self.own_level(subject) or self.own_level(GLOBAL) or "BACKWARD"

    def set_level(self, subject: str, level: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO levels VALUES (?, ?)", (subject, level))

    def conflicts(self, subject: str, text: str, versions: list[int]) -> list[str]:
        """Why a schema may not follow these versions at the subject's level; empty when it may."""
        level = self.level(subject)
        compared = versions if level.endswith("_TRANSITIVE") else versions[-1:]
        reasons: list[str] = []
        for version in compared if level != "NONE" else []:
            older = str(self.version(subject, version)["schema"])
            if level.startswith(("BACKWARD", "FULL")):
                reasons += [f"version {version} cannot be read: {r}" for r in unreadable(reader=text, writer=older)]
            if level.startswith(("FORWARD", "FULL")):
                reasons += [f"version {version} cannot read it: {r}" for r in unreadable(reader=older, writer=text)]
        return reasons

    def _version_with(self, subject: str, identity: str) -> tuple[int, int] | None:
        query = "SELECT version, id FROM versions JOIN schemas ON id = schema_id WHERE subject = ? AND identity = ?"
        row: tuple[int, int] | None = self._one(query, subject, identity)
        return row

    def _one(self, query: str, *values: str | int) -> Any:
        return self._db.execute(query, values).fetchone()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
