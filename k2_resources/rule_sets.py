"""The rules of exchanges as files: config/conditions and config/sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from k2_core.conditions import Conditions, parse_conditions
from k2_core.errors import Misconfigured
from k2_core.sessions import Sessions, parse_sessions
from k2_resources.calendars import ExchangeDays

OWN = Path(__file__).resolve().parents[1] / "config"
"""Rules that come with K2; a config folder without a file of that name uses them."""


def load_conditions(config: Path, name: str) -> Conditions:
    """Read conditions/{name}.yaml. Raises Misconfigured."""
    path, document = _read(config, "conditions", name)
    try:
        return parse_conditions(document)
    except ValueError as error:
        raise Misconfigured(f"{path}: {error}") from error


def load_sessions(config: Path, name: str) -> Sessions:
    """Read sessions/{name}.yaml. Which days trade is looked up when first asked. Raises Misconfigured."""
    path, document = _read(config, "sessions", name)
    try:
        return parse_sessions(name, document, ExchangeDays(str(document.get("calendar"))))
    except ValueError as error:
        raise Misconfigured(f"{path}: {error}") from error


def _read(config: Path, kind: str, name: str) -> tuple[Path, dict[str, Any]]:
    path = config / kind / f"{name}.yaml"
    path = path if path.exists() else OWN / kind / f"{name}.yaml"
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise Misconfigured(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise Misconfigured(f"{path}: expected a mapping, found {type(document).__name__}")
    return path, document
