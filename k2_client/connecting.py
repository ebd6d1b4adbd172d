"""What both clients need of httpx2: requests of calls, heads of responses, and which errors are faults of the line."""

from __future__ import annotations

import httpx2 as httpx

from k2_client.steps import Call, Fault, Head

MISUSE = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""Errors of the line that are none: asking again says the same."""


def request_of(http: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
    """The request of a call."""
    body = None if call.body is None else dict(call.body)
    parameters = {name: list(v) if not isinstance(v, str | int) else v for name, v in call.parameters.items()}
    return http.build_request(call.method, call.path, params=parameters or None, json=body)


def head_of(response: httpx.Response) -> Head:
    """What came before the body."""
    return Head(response.status_code, {name.lower(): value for name, value in response.headers.items()})


def fault_of(error: httpx.TransportError) -> Fault:
    """Say how the line failed. Raises the error again when the line is not to blame."""
    if isinstance(error, MISUSE):
        raise error
    return Fault(f"{type(error).__name__}: {error}".rstrip(": "))
