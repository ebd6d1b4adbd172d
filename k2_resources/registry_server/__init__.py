"""The embedded schema registry: Confluent's HTTP API as far as clients use it, over SQLite.

Schemas are Avro without references. Nothing is ever deleted: a record in a table names its schema id for ever.
Every refusal is Confluent's error body; no input is a server error.
"""

from __future__ import annotations

from k2_resources.registry_server.app import serve

__all__ = ["serve"]
