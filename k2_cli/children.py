"""The servers `k2 up` starts as processes of their own."""

from __future__ import annotations

import click


@click.command()
def broker() -> None:
    """Serve the topics of feeds.yaml from memory."""
    from k2_resources import embedded_broker, telemetry
    from k2_resources.settings import Settings, load_feeds

    telemetry.configure("broker")
    settings = Settings()
    embedded_broker.run({feed.topic: feed.kafka_partitions for feed in load_feeds(settings)}, settings.home)


@click.command()
@click.argument("port", type=click.IntRange(1, 65_535))
def registry(port: int) -> None:
    """Serve the schemas of this home on PORT."""
    from k2_resources import registry_server, telemetry
    from k2_resources.settings import Settings

    telemetry.configure("registry")
    registry_server.serve(Settings().home, port)
