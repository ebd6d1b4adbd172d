"""Ways to the exchange: certificates of one's own, and a proxy."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from k2_core.errors import Misconfigured, Unreachable
from k2_feeds.exchange import ExchangeSettings, exchange
from k2_resources import clock
from k2_resources.binance.stream import Endpoint, Stream

NAMES = ("simbtcusdt@trade",)


@pytest.fixture
def running():
    with exchange(ExchangeSettings(symbols=("SIMBTCUSDT",), speed=60.0, trades_per_second=10.0)) as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that nobody trusts, and its key: PEM files."""
    folder, key = tmp_path_factory.mktemp("certificate"), ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "K2 test")]), clock.now()
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


async def pump(reader, writer):
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def in_front_of(port, *, context=None, is_proxy=False, asked=None):
    """A port that hands everything on to another one: after a CONNECT, or out of TLS."""

    async def serve(reader, writer):
        if is_proxy:
            asked.append((await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[:2])
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def first_frame(endpoint):
    """The first frame of a connection."""
    stream, frames = await Stream.open(endpoint, NAMES), asyncio.Queue()
    reader = asyncio.create_task(stream.read(frames.put_nowait))
    try:
        return await asyncio.wait_for(frames.get(), 10)
    finally:
        await stream.close()
        await reader


def port_of(running):
    return int(running.ws_url.rpartition(":")[2])


def test_only_a_certificate_one_trusts_is_trusted(running, certificate):
    async def play():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        async with in_front_of(port_of(running), context=context) as port:
            with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
                await first_frame(Endpoint(f"wss://127.0.0.1:{port}"))
            return await first_frame(Endpoint(f"wss://127.0.0.1:{port}", ca_file=certificate[0]))

    assert asyncio.run(play()).startswith(b'{"stream":"simbtcusdt@trade"')


def test_the_way_through_a_proxy(running):
    asked = []

    async def play():
        async with in_front_of(port_of(running), is_proxy=True, asked=asked) as port:
            return await first_frame(Endpoint(running.ws_url, proxy=f"http://127.0.0.1:{port}"))

    assert asyncio.run(play()).startswith(b'{"stream":"simbtcusdt@trade"')
    assert asked == [[b"CONNECT", f"127.0.0.1:{port_of(running)}".encode()]]


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_certificates_that_is_none_is_named(tmp_path, content):
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    with pytest.raises(Misconfigured, match=r"ca\.pem"):
        Endpoint("wss://127.0.0.1:1", ca_file=path).tls()
