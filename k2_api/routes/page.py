"""The front door: a page for people, the same as JSON for programs, and a guide for language models."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from k2_api.guide import guide
from k2_api.models import About

router = APIRouter(tags=["operations"])
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_JSON, _HTML = "application/json", "text/html"


@dataclass(frozen=True)
class Page:
    """The page, and the headers that go with its very bytes."""

    body: bytes
    headers: dict[str, str]


@router.get("/", response_model=About, responses={200: {"content": {_HTML: {"schema": {"type": "string"}}}}})
async def front(request: Request) -> Response:
    """Where things are: a page for a browser, JSON for everything else."""
    if not wants_page(request.headers.get("Accept", "")):
        about = About(name="K2", version=request.app.version, docs="/docs", redoc="/redoc", health="/health", api="/v1")
        return Response(about.model_dump_json(), headers={"Vary": "Accept"}, media_type=_JSON)
    page = _page()
    if request.headers.get("If-None-Match") == page.headers["ETag"]:
        return Response(None, 304, page.headers)
    return Response(page.body, headers=page.headers, media_type=_HTML)


@router.get("/llms.txt", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
async def llms(request: Request) -> Response:
    """What this API is and every route of it, as plain text for a language model."""
    return Response(guide(request.app.openapi()), media_type="text/plain")


def wants_page(accept: str) -> bool:
    """Whether a client asks for HTML by its name, and at least as much as for JSON."""
    return (html := _liking(accept, _HTML)) > 0 and html >= _liking(accept, _JSON)


def _liking(accept: str, media_type: str) -> float:
    """How much an Accept header likes a media type that it names; 0 where it does not."""
    for entry in accept.split(","):
        named, *parameters = (part.strip().lower() for part in entry.split(";"))
        if named == media_type:
            weights = [text[2:] for text in parameters if text.startswith("q=")]
            try:
                return float(weights[0]) if weights else 1.0
            except ValueError:
                return 0.0
    return 0.0


@cache
def _page() -> Page:
    body = (files("k2_api") / "page" / "index.html").read_text(encoding="utf-8")
    # of all scripts and styles only those of the page itself may run, whatever an answer smuggles into it
    allowed: dict[str, str] = {kind: _digest(text) for kind, text in _INLINE.findall(body)}
    policy = (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; img-src data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    content = body.encode()
    headers = {
        "Vary": "Accept",
        "Cache-Control": "no-cache",
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        "Content-Security-Policy": policy,
    }
    return Page(content, headers)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
