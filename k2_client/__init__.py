"""K2 from Python: trades, quotes, bars and SQL as Arrow tables, exact, complete or an error.

    from k2_client import Client

    with Client("http://127.0.0.1:8000", api_key) as k2:
        trades = k2.trades("BTCUSDT", start="2024-08-08T00:00Z", end="2024-08-08T01:00Z")

`AsyncClient` has the same methods to await. Needs httpx2 and pyarrow and nothing of the server. A request that fails
for the moment is asked again; a stream that breaks goes on after the last row that came, in the version it began in;
what was cut off or changed on its way raises.

Belongs here: the client. It imports nothing of K2's other packages, and they nothing of it.
"""

from __future__ import annotations

from k2_client.aio import AsyncClient
from k2_client.client import Client
from k2_client.errors import Broken, K2ClientError, Refused, Unavailable
from k2_client.retries import Retry

__all__ = ["AsyncClient", "Broken", "Client", "K2ClientError", "Refused", "Retry", "Unavailable"]
