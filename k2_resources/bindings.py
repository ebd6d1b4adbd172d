"""K2 as a Dagster resource: the one file of this package that imports Dagster.

Belongs here: what a run must be told before it can open the outside world. Does not: opening it, which the engine does,
and no addresses or secrets: run config is stored and shown.
"""

from pathlib import Path

import dagster as dg

from k2_resources.settings import Settings


class K2Resource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Says which home assets, checks and sensors work on; the rest is read from the environment of their process."""

    home: str

    def settings(self) -> Settings:
        """Read the settings as they are now: an embedded broker that was restarted has a new address."""
        return Settings(home=Path(self.home))
