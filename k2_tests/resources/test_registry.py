from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx2 as httpx
import pytest
from confluent_kafka.schema_registry import ConfigCompatibilityLevel, Schema, SchemaRegistryClient, ServerConfig
from confluent_kafka.schema_registry.error import SchemaRegistryError

from k2_core.avro import avro_schema
from k2_core.contracts import COVERAGE, QUOTES, TRADES
from k2_core.errors import BadInput, SchemaUnavailable, Unreachable
from k2_resources.registry import Registry
from k2_tests.conftest import free_port, start_registry, stop

JSON = "application/vnd.schemaregistry.v1+json"


def record(*fields, name="Row"):
    return {"type": "record", "name": name, "namespace": "t", "fields": list(fields)}


def field(name, type_="string", **more):
    return {"name": name, "type": type_, **more}


FIRST = record(field("a"))
WITH_DEFAULT = record(field("a"), field("b", "int", default=0))
WITHOUT_DEFAULT = record(field("a"), field("b", "int"))
RETYPED = record(field("a", "int"))


@pytest.fixture
def subject(request):
    """A subject of the test's own: the registry is shared by the session."""
    return f"{request.node.name}-value"


@pytest.fixture
def client(registry_url):
    with SchemaRegistryClient({"url": registry_url, "max.retries": 0}) as client:
        yield client


@pytest.fixture
def http(registry_url):
    with httpx.Client(base_url=registry_url, trust_env=False) as http:
        yield http


def avro(schema):
    return Schema(json.dumps(schema), "AVRO")


def level_of(name):
    return ServerConfig(compatibility=ConfigCompatibilityLevel(name))


def refusal(call, *arguments):
    with pytest.raises(SchemaRegistryError) as caught:
        call(*arguments)
    return caught.value.http_status_code, caught.value.error_code


@pytest.mark.parametrize("table", [TRADES, QUOTES, COVERAGE])
def test_our_contracts_can_be_registered_and_read_back(registry_url, subject, table):
    schema = avro_schema(table)
    assert Registry(registry_url).schema(Registry(registry_url).register(subject, schema)) == schema


def test_the_same_schema_has_one_id_in_every_subject(client, subject):
    first = client.register_schema(f"{subject}.1", avro(FIRST))
    assert client.register_schema(f"{subject}.2", Schema(json.dumps(FIRST, indent=4), "AVRO")) == first
    assert sorted(client.get_schema_versions(first), key=lambda v: v.subject)[-1].version == 1


def test_registering_twice_makes_one_version(client, http, subject):
    client.register_schema(subject, avro(FIRST))
    http.post(f"/subjects/{subject}/versions", json={"schema": json.dumps(FIRST)})
    assert client.get_versions(subject) == [1]


def test_versions_and_latest_are_what_was_registered(client, subject):
    ids = [client.register_schema(subject, avro(schema)) for schema in (FIRST, WITH_DEFAULT)]
    assert client.get_versions(subject) == [1, 2]
    assert client.get_latest_version(subject).schema_id == ids[1]
    assert json.loads(client.get_version(subject, 1).schema.schema_str) == FIRST
    assert client.lookup_schema(subject, avro(WITH_DEFAULT)).version == 2


def test_an_incompatible_schema_is_refused_and_changes_nothing(client, registry_url, subject):
    client.register_schema(subject, avro(FIRST))
    assert refusal(client.register_schema, subject, avro(WITHOUT_DEFAULT)) == (409, 409)
    with pytest.raises(BadInput, match="reader_field_missing_default_value"):
        Registry(registry_url).register(subject, WITHOUT_DEFAULT)
    assert client.get_versions(subject) == [1]


def test_compatibility_is_told_without_registering(client, http, subject):
    client.register_schema(subject, avro(FIRST))
    assert client.test_compatibility(subject, avro(WITH_DEFAULT))
    assert not client.test_compatibility(subject, avro(WITHOUT_DEFAULT))
    assert not client.test_compatibility_all_versions(subject, avro(RETYPED))
    body = {"schema": json.dumps(RETYPED)}
    answer = http.post(f"/compatibility/subjects/{subject}/versions/1?verbose=true", json=body).json()
    assert "type_mismatch" in answer["messages"][0]


@pytest.mark.parametrize(
    ("level", "history", "accepted", "refused"),
    [
        ("NONE", [FIRST], [RETYPED], []),
        ("BACKWARD", [FIRST], [WITH_DEFAULT], [WITHOUT_DEFAULT]),
        ("FORWARD", [FIRST], [WITHOUT_DEFAULT], [record(field("b"))]),
        ("FULL", [FIRST], [WITH_DEFAULT], [WITHOUT_DEFAULT, record(field("b", default=""))]),
        # without `a` the latest version can still be read or reads it, an earlier one cannot
        ("BACKWARD", [record(field("x", "int")), record()], [record(field("x", default=""))], []),
        ("BACKWARD_TRANSITIVE", [record(field("x", "int")), record()], [], [record(field("x", default=""))]),
        ("FORWARD_TRANSITIVE", [record(field("x", default="")), record()], [], [record(field("x", "int"))]),
        ("FULL_TRANSITIVE", [record(field("x", default="")), record()], [], [record(field("x", "int", default=1))]),
    ],
)
def test_each_level_accepts_and_refuses_what_confluent_says(client, subject, level, history, accepted, refused):
    assert client.set_config(subject, level_of(level)) == {"compatibility": level}
    for schema in history:
        client.register_schema(subject, avro(schema))
    for schema in refused:
        assert refusal(client.register_schema, subject, avro(schema)) == (409, 409)
    for schema in accepted:
        client.register_schema(subject, avro(schema))


def test_backward_is_the_level_unless_told_otherwise(client, http, subject):
    assert client.get_config().compatibility_level.value == "BACKWARD"
    assert refusal(client.get_config, subject) == (404, 40408)
    assert http.put(f"/config/{subject}", json={"compatibility": "SIDEWAYS"}).json()["error_code"] == 42203


def test_what_is_absent_has_confluents_codes(client, subject):
    client.register_schema(subject, avro(FIRST))
    assert refusal(client.get_versions, "nobody") == (404, 40401)
    assert refusal(client.get_version, subject, 7) == (404, 40402)
    assert refusal(client.get_version, subject, "first") == (422, 42202)
    assert refusal(client.get_schema, 2_000_000_000) == (404, 40403)
    assert refusal(client.lookup_schema, subject, avro(RETYPED)) == (404, 40403)


def test_nothing_can_be_deleted(client, subject):
    client.register_schema(subject, avro(FIRST))
    assert refusal(client.delete_subject, subject) == (405, 405)
    assert refusal(client.delete_version, subject, 1) == (405, 405)
    assert client.get_versions(subject) == [1]


@pytest.mark.parametrize("name", ["größe/ mit %2F?&#", "市场.行情", "a b", "x" * 1_000])
def test_any_printable_subject_is_a_subject(client, name):
    client.register_schema(name, avro(FIRST))
    assert client.get_versions(name) == [1]
    assert name in client.get_subjects()


@pytest.mark.parametrize(
    "schema",
    [
        "",
        "{",
        "3",
        '"nothing"',
        '{"type":"record","name":"r"}',
        '{"type":"record","name":"r","fields":[{"name":"f","type":"gone"}]}',
        '{"type":"enum","name":"e","symbols":["a","a"]}',
        '{"type":"fixed","name":"f","size":"big"}',
        '["int","int"]',
        '{"type":"record","name":"r","fields":[{"name":"\\ud800","type":"int"}]}',
        '{"type":"record","name":"r","fields":[{"name":"f","type":"double","default":NaN}]}',
        "[" * 50_000,
        '{"type":"array","items":' * 5_000 + '"int"' + "}" * 5_000,
    ],
    ids=lambda text: text[:40] or "empty",
)
def test_what_is_no_avro_schema_is_refused_as_such(http, subject, schema):
    answer = http.post("/subjects/hostile/versions", json={"schema": schema})
    assert (answer.status_code, answer.json()["error_code"]) == (422, 42201)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, 400),
        (b"not json", 400, 400),
        (b"\xff\xfe\x00", 400, 400),
        (b"[]", 400, 400),
        (b"[" * 100_000, 400, 400),
        (b"{}", 422, 42201),
        (b'{"schema": 7}', 422, 42201),
        (b'{"schema": "syntax = \\"proto3\\";", "schemaType": "PROTOBUF"}', 422, 42201),
        (b'{"schema": "{}", "schemaType": "JSON"}', 422, 42201),
        (b'{"schema": "{}", "schemaType": ["AVRO"]}', 422, 42201),
        (b'{"schema": "\\"int\\"", "references": [{"name": "a", "subject": "b", "version": 1}]}', 422, 42201),
        (b'{"schema": "\\"int\\"", "id": 7}', 422, 42205),
        (b'{"schema": "' + b" " * 2_000_000 + b'"}', 413, 413),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_hostile_body_gets_a_clear_refusal(http, body, status, code):
    answer = http.post("/subjects/hostile/versions", content=body)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert answer.headers["content-type"] == JSON
    assert answer.json()["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/schemas/ids/99999999999999999999999", 404),
        ("GET", "/schemas/ids/-1", 404),
        ("GET", "/schemas/ids/x", 404),
        ("GET", "/subjects/%FF%00/versions", 422),
        ("GET", "/subjects/%20/versions", 422),
        ("PATCH", "/subjects", 405),
        ("PUT", "/config", 400),
        ("PUT", "/mode", 400),
        ("DELETE", "/config", 405),
    ],
)
def test_a_hostile_path_gets_a_clear_refusal(http, method, path, status):
    answer = http.request(method, path)
    assert answer.status_code == status
    assert str(answer.json()["error_code"]).startswith(str(status))


def test_small_questions_clients_ask_at_start_have_answers(http):
    answers = {path: http.get(path).json() for path in ("/", "/schemas/types", "/mode", "/contexts")}
    assert answers == {"/": {}, "/schemas/types": ["AVRO"], "/mode": {"mode": "READWRITE"}, "/contexts": ["."]}


def test_concurrent_registration_gives_one_id_and_one_version(registry_url, client, subject):
    with ThreadPoolExecutor(16) as pool:
        ids = set(pool.map(lambda _: Registry(registry_url).register(subject, FIRST), range(32)))
    assert len(ids) == 1
    assert client.get_versions(subject) == [1]


def test_two_servers_on_one_file_never_give_an_id_twice(tmp_path):
    ports = free_port(), free_port()
    servers = [start_registry(tmp_path, port) for port in ports]
    try:
        with ThreadPoolExecutor(8) as pool:
            ids = list(
                pool.map(
                    lambda i: Registry(f"http://127.0.0.1:{ports[i % 2]}").register(f"s{i}", record(field(f"f{i}"))),
                    range(24),
                )
            )
    finally:
        for server in servers:
            stop(server)
    assert sorted(ids) == list(range(1, 25))


def test_ids_levels_and_versions_survive_a_kill(tmp_path):
    port = free_port()
    child = start_registry(tmp_path, port)
    with SchemaRegistryClient({"url": f"http://127.0.0.1:{port}"}) as client:
        schema_id = client.register_schema("s", avro(FIRST))
        client.set_config("s", level_of("FULL"))
    child.kill()
    child.wait()
    child = start_registry(tmp_path, port)
    with SchemaRegistryClient({"url": f"http://127.0.0.1:{port}"}) as again:
        assert json.loads(again.get_schema(schema_id).schema_str) == FIRST
        assert again.get_config("s").compatibility_level.value == "FULL"
        assert again.register_schema("other", avro(RETYPED)) == schema_id + 1
    stop(child)


def test_an_id_the_registry_denies_is_none(registry_url):
    assert Registry(registry_url).schema(2_000_000_000) is None


def test_a_subject_is_known_once_it_has_a_version(registry_url, subject):
    registry = Registry(registry_url)
    assert not registry.knows_subject(subject)
    registry.register(subject, FIRST)
    assert registry.knows_subject(subject)


def test_a_schema_once_found_needs_no_registry_any_more(tmp_path):
    port = free_port()
    child = start_registry(tmp_path, port)
    registry = Registry(f"http://127.0.0.1:{port}")
    try:
        schema_id = registry.register("s", FIRST)
        reader = Registry(f"http://127.0.0.1:{port}")
        assert reader.schema(schema_id) == FIRST
    finally:
        stop(child)
    assert reader.schema(schema_id) == FIRST


def test_no_registry_is_unreachable():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        registry = Registry(f"http://127.0.0.1:{probe.getsockname()[1]}")
        with pytest.raises(Unreachable, match="schema 1"):
            registry.schema(1)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<html>no such page</html>"),
        (404, b'{"error_code": 404, "message": "HTTP 404 Not Found"}'),
        (404, b"[]"),
        (401, b'{"error_code": 40101, "message": "Unauthorized"}'),
        (200, b"hello"),
        (200, b"[]"),
        (200, b'{"schema": "{"}'),
        (200, b"{}"),
    ],
)
def test_an_answer_that_settles_nothing_is_never_taken_for_an_unknown_id(status, body):
    with answering(status, body) as url, pytest.raises(SchemaUnavailable):
        Registry(url).schema(1)


def test_a_schema_that_is_not_avro_is_returned_as_something_no_record_matches():
    with answering(200, b'{"schemaType": "PROTOBUF", "schema": "syntax = \\"proto3\\";"}') as url:
        assert Registry(url).schema(1) == {"type": "PROTOBUF"}


class answering:
    """A server that gives one answer to everything."""

    def __init__(self, status, body):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Answer)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
