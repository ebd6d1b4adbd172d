"""A code location with the sensor `alerts` alone, for a real webserver in tests."""

from __future__ import annotations

from dagster import Definitions

from k2_assets.alerts import alerts
from k2_resources.bindings import K2Resource

defs = Definitions(sensors=[alerts], resources={"k2": K2Resource(home=".k2")})
