"""The OpenAPI document: valid, complete, with examples that the service really answers."""

import asyncio
import copy
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
import schemathesis
from fastapi import APIRouter, FastAPI

import service.api
from docs.make_examples import EXAMPLES, record
from service import Settings, create_app
from service.api.error_examples import INFERENCE_ERRORS, PROBLEMS
from service.api.openapi import operations
from service.errors import TITLES
from tests.support.declared import check_declared, operation_of, resolved
from tests.support.images import drawn_seven, encoded

Json = dict[str, Any]

PROBLEM = "application/problem+json"
KEY = "sixteen characters or more"
PAGES = {"/", "/web/{name}", "/docs", "/docs/{name}", "/v2/"}  # and /v2 said otherwise
READING = {408, 413, 422, 429, 500, 503, 504}
NAMED = "/v2/models/{name}"
OF_VERSION = "/v2/models/{name}/versions/{version}"
STATUSES = {
    ("POST", "/predict"): {200, 401, 415} | READING,
    ("POST", "/predict/batch"): {200, 401} | READING,
    ("GET", "/model"): {200, 401, 500, 503},
    ("POST", "/model/reload"): {200, 401, 403, 409, 500, 503},
    ("GET", "/model/report"): {200, 401, 404, 500, 503},
    ("GET", "/metrics"): {200, 401, 500},
    ("GET", "/health/live"): {200, 500},
    ("GET", "/health/ready"): {200, 500, 503},
    ("GET", "/v2"): {200, 401, 500},
    ("GET", "/v2/health/live"): {200, 500},
    ("GET", "/v2/health/ready"): {200, 500, 503},
    **{("GET", path): {200, 401, 404, 500, 503} for path in (NAMED, OF_VERSION)},
    **{("GET", f"{path}/ready"): {200, 401, 404, 500, 503} for path in (NAMED, OF_VERSION)},
    **{
        ("POST", f"{path}/infer"): {200, 400, 401, 404, 415} | READING
        for path in (NAMED, OF_VERSION)
    },
}


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> Json:
    """The document as it comes over the socket."""
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    found: Json = answer.json()
    return found


def declared_responses(document: Json) -> Iterator[tuple[str, str, Json]]:
    """What each operation answers: the operation, the status, the response."""
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            yield f"{method} {path}", status, resolved(response, document)


def problem_of(client: httpx.Client, method: str, path: str, **options: Any) -> tuple[int, str]:
    body = client.request(method, path, **options).json()
    return body["status"], body["detail"]


# The whole


def test_the_document_is_valid(document: Json) -> None:
    assert document["openapi"].startswith("3.1")
    schemathesis.openapi.from_dict(document).validate()
    broken = copy.deepcopy(document)
    broken["paths"]["/predict"]["post"]["responses"]["200"]["description"] = None
    with pytest.raises(ValueError, match="null is not of type"):
        schemathesis.openapi.from_dict(broken).validate()


def test_every_route_is_in_the_document_but_the_pages_and_what_they_are_made_of(
    document: Json,
) -> None:
    routes = set()
    for module in pkgutil.iter_modules(service.api.__path__, "service.api."):
        found = vars(importlib.import_module(module.name)).values()
        routers = [value for value in found if isinstance(value, APIRouter)]
        routes |= {
            (m, route.path) for router in routers for route in router.routes for m in route.methods
        }
    in_document = {(method, path) for path, method, _ in operations(document)}
    assert {(method, path) for method, path in routes if path not in PAGES} == in_document
    assert in_document == STATUSES.keys()


def test_every_reference_leads_somewhere_and_nothing_is_left_of_other_errors(
    document: Json,
) -> None:
    text = json.dumps(document)
    references = set(re.findall(r'"\$ref": "([^"]+)"', text))
    assert references
    for reference in references:
        assert resolved({"$ref": reference}, document)
    assert "ValidationError" not in text


def test_it_says_what_it_is_and_where(document: Json) -> None:
    info = document["info"]
    assert info["title"]
    assert info["summary"]
    assert "curl" in info["description"]
    assert info["license"] == {"name": "MIT", "identifier": "MIT"}
    assert all(server["url"].startswith("/") for server in document["servers"])
    used = {tag for _, _, operation in operations(document) for tag in operation["tags"]}
    assert used == {tag["name"] for tag in document["tags"]}
    assert all(tag["description"] for tag in document["tags"])


def test_where_it_is_mounted_below_another_its_server_is_there() -> None:
    outer = FastAPI()
    outer.mount("/below", create_app(Settings()))

    async def found() -> Json:
        transport = httpx.ASGITransport(app=outer)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            body: Json = (await client.get("/below/openapi.json")).json()
            return body

    assert asyncio.run(found())["servers"][0]["url"] == "/below"


# Words


def test_everything_is_described(document: Json) -> None:
    ids = set()
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        ids.add(operation["operationId"])
        for parameter in operation["parameters"]:
            assert resolved(parameter, document)["description"], where
    assert len(ids) == len(list(operations(document)))
    for name, schema in document["components"]["schemas"].items():
        for field, value in schema.get("properties", {}).items():
            told = value.get("description") or resolved(value, document).get("description")
            assert told, f"{name}.{field}"
    for where, status, response in declared_responses(document):
        assert response["description"] != "Successful Response", f"{where} {status}"


# Statuses, headers and the key


@pytest.mark.parametrize(("method", "path"), STATUSES)
def test_an_operation_declares_every_status_that_it_can_answer(
    document: Json, method: str, path: str
) -> None:
    responses = document["paths"][path][method.lower()]["responses"]
    assert {int(status) for status in responses} == STATUSES[method, path]


def test_every_error_is_a_problem_with_its_title(document: Json) -> None:
    schema = document["components"]["schemas"]["Problem"]
    assert set(schema["properties"]) == {"type", "title", "status", "detail", "request_id"}
    for where, status, response in declared_responses(document):
        if int(status) >= 400 and not where.partition(" ")[2].startswith("/v2"):
            assert set(response["content"]) == {PROBLEM}, where
            assert response["content"][PROBLEM]["schema"] == {
                "$ref": "#/components/schemas/Problem"
            }
            assert response["description"] == f"{TITLES[int(status)]}."
        elif int(status) >= 400:
            schema = response["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/InferenceError"}


def test_every_answer_declares_its_headers(document: Json, client: httpx.Client) -> None:
    seen = client.get("/health/live").headers
    for where, status, response in declared_responses(document):
        headers = {name: resolved(value, document) for name, value in response["headers"].items()}
        assert headers["X-Request-ID"]["required"], where
        assert headers["Server-Timing"]["required"], where
        assert ("Retry-After" in headers) == (status in {"429", "503"}), where
        assert ("WWW-Authenticate" in headers) == (status == "401"), where
        for name in ("X-Request-ID", "Server-Timing"):
            jsonschema.validate(seen[name], headers[name]["schema"])


def test_how_tensors_are_sent_is_declared(document: Json, client: httpx.Client) -> None:
    image = {"name": "images", "datatype": "UINT8", "shape": [9, 28, 28], "data": [0] * 784 * 9}
    answer = client.post("/v2/models/digits/infer", json={"inputs": [image]})
    for path in (NAMED, OF_VERSION):
        headers = document["paths"][f"{path}/infer"]["post"]["responses"]["200"]["headers"]
        assert headers["Vary"]["required"]
        for name in ("Vary", "Content-Encoding"):
            jsonschema.validate(answer.headers[name], headers[name]["schema"])


def test_the_key_is_declared_for_what_needs_it_and_for_what_may(document: Json) -> None:
    scheme = document["components"]["securitySchemes"]["key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for_all = create_app(Settings(api_key=KEY, require_api_key=True)).openapi()
    for path, method, operation in operations(document):
        needed = for_all["paths"][path][method.lower()].get("security")
        if path == "/model/reload":
            assert operation["security"] == needed == [{"key": []}]
        elif "/health/" in path:
            assert "security" not in operation
            assert needed is None
        else:
            assert operation["security"] == [{}, {"key": []}]
            assert needed == [{"key": []}]


def test_bounds_that_are_settings_are_in_the_document() -> None:
    document = create_app(Settings(draws=60, max_batch_files=3)).openapi()
    by_name = {p.get("name"): p for p in document["paths"]["/predict"]["post"]["parameters"]}
    assert by_name["samples"]["schema"]["maximum"] == by_name["samples"]["example"] == 60
    files = document["components"]["schemas"]["Body_predict_batch"]["properties"]["files"]
    assert (files["minItems"], files["maxItems"]) == (1, 3)


def test_the_document_declares_the_query_and_the_pictures(document: Json) -> None:
    for path, part in (("/predict", "file"), ("/predict/batch", "files")):
        operation = document["paths"][path]["post"]
        query = [p for p in operation["parameters"] if p.get("in") == "query"]
        assert {p["name"] for p in query} == {"samples", "level", "preview", "draws"}
        assert all(type(p["schema"]["type"]) is str for p in query)  # no query can be null
        assert all(p["example"] is not None for p in query)
        form = operation["requestBody"]["content"]["multipart/form-data"]
        assert resolved(form["schema"], document)["required"] == [part]
        assert "image/png" in form["encoding"][part]["contentType"]


# Examples


def test_every_answer_has_an_example_and_every_example_fits_its_schema(document: Json) -> None:
    for where, status, response in declared_responses(document):
        for media_type, content in response["content"].items():
            if media_type in ("application/openmetrics-text", "application/octet-stream"):
                continue  # much the same as the plain text; nothing that JSON can hold
            assert content["examples"], f"{where} {status} {media_type}"
            schema = {**content["schema"], "components": document["components"]}
            for example in content["examples"].values():
                assert example["summary"]
                jsonschema.validate(example["value"], schema)
                with pytest.raises(jsonschema.ValidationError):
                    jsonschema.validate({"of another": "kind"}, schema)


def test_the_examples_are_what_the_service_answers(client: httpx.Client) -> None:
    written = json.loads(EXAMPLES.read_text())
    given = record(client)
    machine = written["GET /model"]["200"]["application/json"]["shipped"]["value"]
    same = given["GET /model"]["200"]["application/json"]["shipped"]["value"]
    same["lanes"] = machine["lanes"]
    same["draws_reproduced"] = machine["draws_reproduced"]
    check_alike(written, given, "")


def check_alike(written: Any, given: Any, where: str) -> None:
    """Fail unless both are the same, numbers to what machines may differ by."""
    assert type(written) is type(given), where
    if isinstance(written, dict):
        assert written.keys() == given.keys(), where
        for key, value in written.items():
            check_alike(value, given[key], f"{where}/{key}")
    elif isinstance(written, list):
        assert len(written) == len(given), where
        for i, (mine, other) in enumerate(zip(written, given, strict=True)):
            check_alike(mine, other, f"{where}/{i}")
    elif isinstance(written, float):
        assert written == pytest.approx(given, abs=2e-4 if "/draws/" in where else 1e-5), where
    else:
        assert written == given, f"{where}: run python -m docs.make_examples"


def test_the_problems_are_worded_as_the_service_words_them(client: httpx.Client) -> None:
    seven, mib = encoded(drawn_seven()), 2**20
    huge = encoded(drawn_seven().resize((9000, 9000)).convert("1"))
    found = [
        problem_of(client, "POST", "/model/reload"),
        problem_of(client, "POST", "/predict"),
        problem_of(client, "POST", "/predict", files={"file": b""}),
        problem_of(client, "POST", "/predict", files={"file": b"This is a seven."}),
        problem_of(client, "POST", "/predict?samples=101", files={"file": seven}),
        problem_of(client, "POST", "/predict", files={"file": huge}),
        problem_of(client, "POST", "/predict/batch", files=[("files", b"x")] * 65),
    ]
    status, detail = problem_of(client, "POST", "/predict", files={"file": bytes(20 * mib)})
    assert re.sub("[0-9,]+", "N", detail) == re.sub("[0-9,]+", "N", PROBLEMS[status]["body"])
    for status, detail in found:
        assert detail in PROBLEMS[status].values()
    assert {status for status, _ in found} == {403, 413, 415, 422}


def test_the_errors_of_the_inference_protocol_are_worded_as_the_service_words_them(
    client: httpx.Client,
) -> None:
    image = {"name": "images", "datatype": "UINT8"}
    one = {"inputs": [{**image, "shape": [1, 28, 28], "data": [0] * 784}]}
    many = {"inputs": [{**image, "shape": [513, 28, 28], "data": [0] * 784 * 513}]}
    infer = "/v2/models/digits/infer"
    found = [
        client.get("/v2/models/letters"),
        client.post(infer, content=b"This is a seven."),
        client.post(infer, content=b"seven", headers={"Content-Encoding": "br"}),
        client.post(infer, json={**one, "parameters": {"samples": 101}}),
        client.post(infer, json=many),
    ]
    for answer in found:
        assert answer.json()["error"] in INFERENCE_ERRORS[answer.status_code].values()
    assert {answer.status_code for answer in found} == {400, 404, 413, 415, 422}


def test_a_service_that_has_not_started_words_its_problems_as_the_document_does() -> None:
    async def asked() -> list[Json]:
        transport = httpx.ASGITransport(app=create_app(Settings(api_key=KEY)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [
                (await client.post("/model/reload")).json(),
                (await client.get("/model")).json(),
            ]

    for body in asyncio.run(asked()):
        assert body["detail"] in PROBLEMS[body["status"]].values()


# What the other tests rely on


def test_an_answer_that_is_not_declared_is_noticed() -> None:
    assert operation_of("GET", "/model/nothing") is None
    request = httpx.Request("GET", "http://test/health/live")
    problem = {"content-type": PROBLEM}
    check_declared(httpx.Response(500, headers=problem, request=request))
    with pytest.raises(AssertionError, match="503 is not declared"):
        check_declared(httpx.Response(503, headers=problem, request=request))
    with pytest.raises(AssertionError, match="text/html is not declared"):
        check_declared(httpx.Response(500, headers={"content-type": "text/html"}, request=request))
