"""The rules of exchanges as files: config/conditions and config/sessions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from k2_core.conditions import ALL, Conditions, parse_conditions
from k2_core.errors import Misconfigured
from k2_core.sessions import Sessions, parse_sessions
from k2_resources.calendars import ExchangeDays

OWN = Path(__file__).resolve().parents[1] / "config"
"""Rules that come with K2; a config folder without a file of that name uses them."""


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML was built with it: the loader in Python takes 13 ms for the feeds alone, at every start."""


def read_yaml(path: Path) -> Any:
    """Read a configuration file. Raises OSError, yaml.YAMLError."""
    return yaml.load(path.read_text(), Loader=_LOADER)  # noqa: S506 - both loaders are safe ones


def load_conditions(config: Path, name: str) -> Conditions:
    """Read conditions/{name}.yaml. Raises Misconfigured."""
    path, document = _read(config, "conditions", name)
    try:
        return parse_conditions(document)
    except ValueError as error:
        raise Misconfigured(f"{path}: {error}") from error


def conditions_version(config: Path, exchange: str) -> str | None:
    """Version of the update rules of an exchange; None where it has none. Raises Misconfigured."""
    name = exchange.lower()
    has_rules = any((folder / "conditions" / f"{name}.yaml").exists() for folder in (config, OWN))
    return load_conditions(config, name).version if has_rules else None


def update_rules(config: Path, exchange: str) -> Conditions:
    """The update rules of an exchange; where it has none, every print moves everything. Raises Misconfigured."""
    return all_conditions(config, (exchange,)).get(exchange) or Conditions(exchange, (), ALL)


def all_conditions(config: Path, exchanges: Iterable[str]) -> dict[str, Conditions]:
    """The condition matrices of exchanges, from conditions/{exchange in lower case}.yaml; of those that have one.

    Raises Misconfigured.
    """
    named = {exchange: exchange.lower() for exchange in exchanges}
    return {e: load_conditions(config, name) for e, name in named.items() if _path(config, "conditions", name).exists()}


def load_sessions(config: Path, name: str) -> Sessions:
    """Read sessions/{name}.yaml. Which days trade is looked up when first asked. Raises Misconfigured."""
    path, document = _read(config, "sessions", name)
    try:
        return parse_sessions(name, document, ExchangeDays(str(document.get("calendar"))))
    except ValueError as error:
        raise Misconfigured(f"{path}: {error}") from error


def _read(config: Path, kind: str, name: str) -> tuple[Path, dict[str, Any]]:
    path = _path(config, kind, name)
    try:
        document = read_yaml(path)
    except (OSError, yaml.YAMLError) as error:
        raise Misconfigured(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise Misconfigured(f"{path}: expected a mapping, found {type(document).__name__}")
    return path, document


def _path(config: Path, kind: str, name: str) -> Path:
    path = config / kind / f"{name}.yaml"
    return path if path.exists() else OWN / kind / f"{name}.yaml"
