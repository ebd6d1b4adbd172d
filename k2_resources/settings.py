"""All settings of K2: one class, prefix K2_, read once by whoever wires."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from k2_core.errors import Misconfigured
from k2_core.feeds import Feed, parse_feeds
from k2_resources.rule_sets import load_sessions, read_yaml

_REPOSITORY = Path(__file__).resolve().parents[1]


class Settings(BaseSettings):
    """Where K2 lives and how much it may use.

    Addresses left empty are those of the embedded stack on `home`, read from its endpoints file at each use:
    an embedded broker that was restarted has a new port.
    """

    model_config = SettingsConfigDict(env_prefix="K2_", extra="ignore", frozen=True)

    home: Path = Field(Path(".k2"), description="Everything the embedded stack keeps.")
    config: Path = Field(_REPOSITORY / "config", description="Folder with feeds.yaml.")
    sample_data: Path = Field(_REPOSITORY.parent / "shared" / "data", description="Real captures for tests.")

    binance_rest_url: str = Field(
        "https://api.binance.com", description="REST of Binance spot, for repair and backfill."
    )

    live_url: str = Field(
        "wss://stream.binance.com:9443", description="Streams of Binance spot: scheme, host and port."
    )
    live_ca_file: Path | None = Field(
        None, description="Certificates (PEM) trusted beside the system's, for a gateway."
    )
    live_proxy: str | None = Field(None, description="Proxy to the exchange; empty = what the environment says.")
    live_rotate_seconds: float = Field(
        14_400.0, gt=0, le=82_800, description="Age at which a connection is replaced; the exchange cuts at 24 h."
    )
    live_overlap_seconds: float = Field(5.0, ge=0, description="How long a connection runs beside its successor.")
    live_silence_seconds: float = Field(60.0, gt=0, description="A connection without a frame so long is replaced.")
    live_symbol_silence_seconds: float = Field(300.0, gt=0, description="A symbol silent for so long is called stale.")
    live_ping_seconds: float = Field(20.0, gt=0, description="How often the exchange is asked whether it lives.")
    live_breaker_seconds: float = Field(30.0, gt=0, description="Pause after three failed attempts to connect.")
    live_memory_bytes_max: int = Field(32 << 20, gt=0, description="Frames held in memory; more go to disk.")
    live_spill_bytes_max: int = Field(2 << 30, gt=0, description="Frames held on disk; more stop the live feed.")
    live_drain_seconds: float = Field(20.0, gt=0, description="How long an ordered end waits for the broker.")
    live_metrics_host: str = Field("127.0.0.1", description="Address the live feed serves /metrics on.")
    live_metrics_port: int = Field(9464, ge=0, le=65_535, description="Port of its /metrics; 0 = any free one.")

    kafka_bootstrap: str | None = Field(None, description="Kafka brokers; empty = the embedded broker of home.")
    registry_url: str | None = Field(None, description="Schema registry; empty = the embedded one of home.")
    catalog_uri: str | None = Field(None, description="SQLAlchemy URL of the catalog; empty = SQLite in home.")
    warehouse: str | None = Field(None, description="Root of the tables; empty = home/warehouse.")

    api_host: str = Field("127.0.0.1", description="Address the API listens on.")
    api_port: int = Field(8000, description="Port the API prefers; another free one is taken when it is in use.")
    dagster_port: int = Field(3000, description="Port the Dagster webserver prefers.")
    launcher: Literal["standard", "fast"] = Field(
        "fast",
        description="How `k2 up` launches runs: standard = Dagster's way, a new interpreter; fast = a warm fork.",
    )
    registry_port: int = Field(8081, description="Port the embedded registry prefers.")

    rows_per_commit: int = Field(100_000, gt=0, description="Records of one commit at most.")
    batch_rows_min: int = Field(50_000, gt=0, description="Waiting records that start a run at once.")
    batch_age_seconds: float = Field(4.0, ge=0, description="Age of the lag that starts a run whatever its size.")
    commit_age_seconds_max: float = Field(10.0, gt=0, description="Records read wait this long for a commit at most.")
    memory_bytes_max: int = Field(
        512 << 20, ge=64 << 20, description="Bytes an ingest run may hold, whatever the backlog."
    )
    run_rows_max: int = Field(1_000_000, gt=0, description="Records one run takes at most.")
    kafka_timeout_seconds: float = Field(10.0, gt=0, description="Longest wait for an answer of the broker.")
    embedded_backlog_bytes_max: int = Field(
        2_500_000,
        gt=0,
        description="Unconsumed bytes a producer leaves in one embedded Kafka partition; it drops beyond 5 MiB.",
    )
    run_dates_max: int = Field(200, gt=0, description="Exchange dates one run reports at most.")
    dagster_url: str | None = Field(None, description="Dagster's webserver; empty = the one of the embedded stack.")
    alert_webhook_url: str | None = Field(None, description="Where alerts are posted as JSON; empty = nowhere.")
    alert_webhook_token: SecretStr | None = Field(None, description="Bearer token of that webhook.")
    alert_smtp: str | None = Field(None, description="Mail server for alerts, host:port; empty = no mails.")
    alert_smtp_user: str | None = Field(None, description="User of that server; empty = it asks for none.")
    alert_smtp_password: SecretStr | None = Field(None, description="Password of that user.")
    alert_smtp_starttls: bool = Field(False, description="Whether mails go encrypted to that server.")
    alert_mail_from: str = Field("k2@localhost", description="Sender of alert mails.")
    alert_mail_to: str = Field("", description="Who gets alert mails, separated by commas.")
    alert_timeout_seconds: float = Field(5.0, gt=0, description="Longest wait for an answer of either.")
    alert_dagster_url: str | None = Field(None, description="Dagster's UI as people open it; empty = dagster_url.")
    alert_runbook_url: str = Field("docs/RUNBOOK.md", description="The runbook as people open it.")
    alert_lag_records_max: int = Field(1_000_000, gt=0, description="More records waiting in a topic are an alert.")
    alert_lag_seconds_max: float = Field(300.0, gt=0, description="Records of a topic that wait so long are one, too.")
    alert_silence_seconds: float = Field(900.0, gt=0, description="A feed silent for so long in session is one.")
    alert_daemon_seconds: float = Field(120.0, gt=0, description="Dagster's daemon silent for so long is one.")
    run_days_kept: float = Field(7.0, gt=0, description="Days Dagster keeps a run that nothing shown depends on.")
    failed_run_days_kept: float = Field(30.0, gt=0, description="Days Dagster keeps such a run that failed.")
    pruned_runs_max: int = Field(2_000, gt=0, description="Runs one pruning takes away at most.")
    day_close_grace_minutes: int = Field(
        60, ge=0, description="How long after its midnight a date of an exchange is closed; 1440 is a day."
    )
    day_close_settle_seconds: float = Field(
        60.0, ge=0, description="A past date is closed once no commit has named it for so long."
    )
    day_close_every_seconds: int = Field(
        29, gt=0, description="Between two looks for dates to close; Dagster's daemon loops every 5 s."
    )
    upkeep_cron: str = Field(
        "17 * * * *", description="When the lake is looked after; off the hour, as others are on it."
    )
    upkeep_seconds_max: float = Field(
        900.0, gt=0, description="A run begins no further rewrite after so long; the next one goes on."
    )
    compaction_settle_hours: float = Field(
        12.0, ge=0, description="An exchange date is closed so long after its end in UTC, and rewritten once."
    )
    compaction_fragments_max: int = Field(
        32, gt=1, description="Data files of one date and about one size before they are folded into one."
    )
    compaction_rows_max: int = Field(
        1_000_000, gt=0, description="Rows of a rewritten data file: it and its sorted copy are in memory, 0.5 GB."
    )
    snapshot_hours_max: float = Field(
        24.0, ge=0, description="Older snapshots are forgotten; what they said stays citable by its version."
    )
    deletion_grace_seconds: float = Field(
        3600.0,
        ge=0,
        description="Files nothing refers to go so long after that was seen: longer than any reader reads.",
    )
    failpoint: str = Field("", description="Stop the commit protocol at name[:nth][:kill|raise|pause]; tests only.")
    api_rate_per_minute: int = Field(
        100, ge=0, description="Units a key may spend in any minute; most requests cost one. 0 = no limit."
    )
    api_probes_per_minute: int = Field(
        60, ge=0, description="Looks at /health and /ready an address may take in any minute. 0 = no limit."
    )
    api_body_bytes_max: int = Field(10 << 20, gt=0, description="Bytes of a request's body.")
    api_body_seconds_max: float = Field(30.0, gt=0, description="How long a body may take to arrive.")
    api_header_seconds_max: float = Field(10.0, gt=0, description="How long the head of a request may take to arrive.")
    api_idle_seconds_max: float = Field(30.0, gt=0, description="How long a connection may wait for its next request.")
    api_stall_seconds_max: float = Field(30.0, gt=0, description="A client that reads nothing for so long is dropped.")
    api_connections_max: int = Field(
        500, gt=1, description="Connections at a time, half of them of one address; files need the other descriptors."
    )
    api_cors_origins: str = Field("", description="Origins of pages that may ask, separated by commas; empty = none.")
    tail_records_max: int = Field(
        100_000, ge=0, description="Records past the newest commit the API holds of a table; 0 = it shows commits only."
    )
    query_threads: int = Field(2, gt=0, description="DuckDB cursors that run at the same time.")
    query_memory: str = Field("2GB", description="Memory DuckDB may use.")
    query_seconds_max: float = Field(30.0, gt=0, description="Deadline of one API query.")
    query_queue_max: int = Field(
        100, ge=0, description="Requests that may wait for a cursor, half a second on two cores; more are refused."
    )
    query_streams_max: int = Field(16, gt=0, description="Answers streamed at a time; more are refused.")
    query_stream_seconds_max: float = Field(
        1800.0, gt=0, description="Deadline of one streamed answer; shorter than deletion_grace_seconds."
    )
    query_cache_bytes_max: int = Field(128 << 20, ge=0, description="Bytes of answers kept for who asks again.")
    sql: bool = Field(False, description="Whether POST /v1/sql answers, for keys with the scope sql.")
    sql_cells: int = Field(1, gt=0, description="Statements of /v1/sql that run at the same time.")
    sql_seconds_max: float = Field(10.0, gt=0, description="How long a statement may take; then its process is killed.")
    sql_memory_bytes_max: int = Field(2 << 30, ge=1 << 30, description="Address space of that process.")
    sql_rows_max: int = Field(100_000, gt=0, description="Rows a statement may ask for.")
    sql_bytes_max: int = Field(64 << 20, gt=0, description="Bytes of its answer, in memory and as sent.")
    sql_files_max: int = Field(4_000, gt=0, description="Data files it may read; a shorter range has fewer.")

    @property
    def endpoints_file(self) -> Path:
        return self.home / "run" / "endpoints.json"

    @property
    def api_key_file(self) -> Path:
        return self.home / "api.key"

    @property
    def api_keys_file(self) -> Path:
        return self.home / "api-keys.json"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    def catalog(self) -> str:
        """SQLAlchemy URL of the catalog."""
        return self.catalog_uri or f"sqlite:///{(self.home / 'catalog.db').resolve()}?timeout=60"

    def warehouse_path(self) -> str:
        """Root of the tables: a local directory or a URL."""
        return self.warehouse or str((self.home / "warehouse").resolve())

    @property
    def is_embedded(self) -> bool:
        """Whether Kafka is the broker in memory, which drops what it cannot hold."""
        return self.kafka_bootstrap is None

    def bootstrap(self) -> str:
        """Kafka address now. Raises Misconfigured when no stack runs on home."""
        return self.kafka_bootstrap or self._endpoint("kafka")

    def registry(self) -> str:
        """Registry address now. Raises Misconfigured when no stack runs on home."""
        return self.registry_url or self._endpoint("registry")

    def dagster(self) -> str | None:
        """Address of Dagster's webserver now; None where none is known."""
        return self.dagster_url or self.endpoints().get("dagster")

    def endpoints(self) -> dict[str, Any]:
        """What `k2 up` wrote: service name -> address. Empty when no stack ever ran on home."""
        try:
            content: dict[str, Any] = json.loads(self.endpoints_file.read_text())
        except FileNotFoundError:
            return {}
        return content

    def _endpoint(self, service: str) -> str:
        try:
            return str(self.endpoints()[service])
        except KeyError:
            raise Misconfigured(
                f"no {service} address in {self.endpoints_file}: start the stack with `k2 up --home {self.home}`, "
                f"or set K2_{'KAFKA_BOOTSTRAP' if service == 'kafka' else 'REGISTRY_URL'}"
            ) from None


def load_feeds(settings: Settings) -> tuple[Feed, ...]:
    """Read config/feeds.yaml. Raises Misconfigured."""
    path = settings.config / "feeds.yaml"
    try:
        return parse_feeds(read_yaml(path), cache(partial(load_sessions, settings.config)))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Misconfigured(f"{path}: {error}") from error
