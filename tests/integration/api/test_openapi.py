"""The OpenAPI document: valid, complete, with examples that the service really answers."""

import asyncio
import copy
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx
import jsonschema
import pytest
import schemathesis
from fastapi import APIRouter, FastAPI

import service.api
import service.open_inference
from docs.make_examples import EXAMPLES, record
from service import Settings, create_app
from service.api.openapi import operations
from tests.support.images import drawn_seven, encoded
from tests.support.service.api_key import KEY
from tests.support.service.declared import check_declared, operation_of, resolved

Json = dict[str, Any]

PROBLEM = "application/problem+json"
PAGES = {"/", "/docs", "/v2/"}  # /v2/ is another spelling of /v2
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
    """The document as the service sends it."""
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    found: Json = answer.json()
    return found


def declared_responses(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Iterate over the operations, their statuses and responses."""
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


def test_every_route_but_the_pages_is_in_the_document(
    document: Json,
) -> None:
    routes = set()
    modules = [
        f"{package.__name__}.{module.name}"
        for package in (service.api, service.open_inference)
        for module in pkgutil.iter_modules(package.__path__)
    ]
    for name in modules:
        found = vars(importlib.import_module(name)).values()
        routers = [value for value in found if isinstance(value, APIRouter)]
        routes |= {
            (m, route.path) for router in routers for route in router.routes for m in route.methods
        }
    in_document = {(method, path) for path, method, _ in operations(document)}
    assert {(method, path) for method, path in routes if path not in PAGES} == in_document
    assert in_document == STATUSES.keys()


def test_every_reference_resolves_and_the_framework_declares_no_errors(
    document: Json,
) -> None:
    text = json.dumps(document)
    references = set(re.findall(r'"\$ref": "([^"]+)"', text))
    assert references
    for reference in references:
        assert resolved({"$ref": reference}, document)
    assert "ValidationError" not in text


def test_the_document_has_a_title_a_licence_tags_and_servers(document: Json) -> None:
    info = document["info"]
    assert info["title"]
    assert info["summary"]
    assert "curl" in info["description"]
    assert info["license"] == {"name": "MIT", "identifier": "MIT"}
    assert all(server["url"].startswith("/") for server in document["servers"])
    used = {tag for _, _, operation in operations(document) for tag in operation["tags"]}
    assert used == {tag["name"] for tag in document["tags"]}
    assert all(tag["description"] for tag in document["tags"])


def test_a_mounted_application_names_its_path_as_server() -> None:
    outer = FastAPI()
    outer.mount("/below", create_app(Settings()))

    async def found() -> Json:
        transport = httpx.ASGITransport(app=outer)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            body: Json = (await client.get("/below/openapi.json")).json()
            return body

    assert asyncio.run(found())["servers"][0]["url"] == "/below"


# Words


def test_every_operation_parameter_and_field_is_described(document: Json) -> None:
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
            described = value.get("description") or resolved(value, document).get("description")
            assert described, f"{name}.{field}"
    for where, status, response in declared_responses(document):
        assert response["description"] != "Successful Response", f"{where} {status}"


# Statuses, headers and the key


@pytest.mark.parametrize(("method", "path"), STATUSES)
def test_an_operation_declares_its_statuses(document: Json, method: str, path: str) -> None:
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
            assert response["description"] == f"{HTTPStatus(int(status)).phrase}."
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


def test_the_headers_of_tensor_answers_are_declared(document: Json, client: httpx.Client) -> None:
    image = {"name": "images", "datatype": "UINT8", "shape": [9, 28, 28], "data": [0] * 784 * 9}
    answer = client.post("/v2/models/digits/infer", json={"inputs": [image]})
    for path in (NAMED, OF_VERSION):
        headers = document["paths"][f"{path}/infer"]["post"]["responses"]["200"]["headers"]
        assert headers["Vary"]["required"]
        for name in ("Vary", "Content-Encoding"):
            jsonschema.validate(answer.headers[name], headers[name]["schema"])


def test_the_key_is_declared_where_it_is_needed_or_may_be(document: Json) -> None:
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


def test_the_document_declares_the_query_and_the_files(document: Json) -> None:
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


def test_every_answer_has_examples_that_fit_its_schema(document: Json) -> None:
    for where, status, response in declared_responses(document):
        for media_type, content in response["content"].items():
            if media_type == "application/octet-stream":
                continue  # no JSON can hold it
            assert content["examples"], f"{where} {status} {media_type}"
            schema = {**content["schema"], "components": document["components"]}
            for example in content["examples"].values():
                assert int(status) >= 400 or example["summary"]
                jsonschema.validate(example["value"], schema)
                with pytest.raises(jsonschema.ValidationError):
                    jsonschema.validate({"of another": "kind"}, schema)


def test_the_examples_are_what_the_service_answers(client: httpx.Client) -> None:
    written = json.loads(EXAMPLES.read_text())
    given = record(client)
    machine = written["GET /model"]["200"]["application/json"]["shipped"]["value"]
    same = given["GET /model"]["200"]["application/json"]["shipped"]["value"]
    for field in ("worker_threads", "draws_reproduced"):
        same[field] = machine[field]
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


def details(document: Json, method: str, path: str, status: int) -> set[str]:
    """Return the details of the examples that an operation declares for a status."""
    response = document["paths"][path][method.lower()]["responses"][str(status)]
    (content,) = response["content"].values()
    bodies = [example["value"] for example in content["examples"].values()]
    return {body.get("detail") or body["error"] for body in bodies}


def without_numbers(detail: str) -> str:
    return re.sub("[0-9,]+", "N", detail)


def test_the_examples_of_problems_are_what_the_service_answers(
    client: httpx.Client, document: Json
) -> None:
    seven, mib = encoded(drawn_seven()), 2**20
    huge = encoded(drawn_seven().resize((9000, 9000)).convert("1"))
    requests: list[tuple[str, Json]] = [
        ("/model/reload", {}),
        ("/predict", {}),
        ("/predict", {"files": {"file": b""}}),
        ("/predict", {"files": {"file": b"This is a seven."}}),
        ("/predict", {"files": {"file": seven}, "params": {"samples": 101}}),
        ("/predict", {"files": {"file": huge}}),
        ("/predict/batch", {"files": [("files", b"x")] * 65}),
    ]
    statuses = set()
    for path, options in requests:
        status, detail = problem_of(client, "POST", path, **options)
        assert detail in details(document, "POST", path, status)
        statuses.add(status)
    assert statuses == {403, 413, 415, 422}
    status, detail = problem_of(client, "POST", "/predict", files={"file": bytes(20 * mib)})
    examples = details(document, "POST", "/predict", status)
    assert without_numbers(detail) in map(without_numbers, examples)


def test_the_examples_of_protocol_errors_are_what_the_service_answers(
    client: httpx.Client, document: Json
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
        method, path = ("GET", NAMED) if answer.status_code == 404 else ("POST", f"{NAMED}/infer")
        examples = details(document, method, path, answer.status_code)
        assert without_numbers(answer.json()["error"]) in map(without_numbers, examples)
    assert {answer.status_code for answer in found} == {400, 404, 413, 415, 422}


def test_the_examples_of_a_service_without_a_model_are_what_it_answers(document: Json) -> None:
    async def asked() -> list[Json]:
        transport = httpx.ASGITransport(app=create_app(Settings(api_key=KEY)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [
                (await client.post("/model/reload")).json(),
                (await client.get("/model")).json(),
            ]

    reload, model = asyncio.run(asked())
    assert reload["detail"] in details(document, "POST", "/model/reload", 401)
    assert model["detail"] in details(document, "GET", "/model", 503)


# The check that all clients of the tests make


def test_check_declared_can_fail() -> None:
    assert operation_of("GET", "/model/nothing") is None
    request = httpx.Request("GET", "http://test/health/live")
    problem = {"content-type": PROBLEM}
    check_declared(httpx.Response(500, headers=problem, request=request))
    with pytest.raises(AssertionError, match="503 is not declared"):
        check_declared(httpx.Response(503, headers=problem, request=request))
    with pytest.raises(AssertionError, match="text/html is not declared"):
        check_declared(httpx.Response(500, headers={"content-type": "text/html"}, request=request))
