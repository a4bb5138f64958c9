"""Schemathesis asks what the OpenAPI document allows, and what it does not, over a real socket.

All its checks apply: no 5xx, nothing undeclared (statuses, media types, headers, bodies), what is
allowed is answered, what is not is refused, methods and keys are as declared. A normal run is
short; `MNN_FUZZ_EXAMPLES=2000` makes it thorough. A route that is declared is asked by itself.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.generation.case import Case
from schemathesis.hooks import HookContext

from service import Settings, create_app
from service.api.openapi import EXAMPLES, operations
from tests.support.server import Server
from tests.support.strategies import FORMATS, fuzz_examples, picture_files, picture_files_of

SHOWN = EXAMPLES["POST /model/reload"]["200"]["application/json"]["taken"]["value"]
KEY = "sixteen characters or more"
SETTINGS = {"device": "cpu", "api_key": KEY, "key_for_all": True}
CONFIG = {
    "auth": {"openapi": {"key": {"bearer": KEY}}},
    # What is not allowed is refused with one of these: api.md has 413 for more files than allowed.
    "checks": {"negative_data_rejection": {"expected-statuses": [400, 401, 404, 405, 413, 422]}},
}


def described() -> schemathesis.BaseSchema:
    """The document of such a service, with real pictures for what it calls pictures."""
    document = create_app(Settings(**SETTINGS)).openapi()
    batch = document["paths"]["/predict/batch"]["post"]["requestBody"]["content"]
    # Schemathesis takes the media type of each file for that of all of them together.
    del batch["multipart/form-data"]["encoding"]
    for path, _, operation in operations(document):
        if path.endswith("/infer"):
            # What these say has to fit the body, byte by byte; test_tensors.py has bodies that do.
            del operation["requestBody"]["content"]["application/octet-stream"]
            operation["parameters"] = [
                p for p in operation["parameters"] if p.get("in") != "header"
            ]
    schemathesis.openapi.format("binary", picture_files())
    for form in FORMATS:
        schemathesis.openapi.media_type(f"image/{form.lower()}", picture_files_of(form))
    return schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(CONFIG))


schema = described()


@schema.hook
def map_case(_context: HookContext, case: Case) -> Case:
    """Have a request that is allowed keep to what no document can say."""
    if case.meta is not None and case.meta.generation.mode.is_positive:
        if case.query:
            case.query.update(consistent(case.query))
        for name, shown in SHOWN.items() if len(str(case.path_parameters)) % 4 else ():
            if name in (case.path_parameters or {}):
                case.path_parameters[name] = shown  # else hardly anything were found
        if case.path.endswith("/infer") and isinstance(case.body, dict):
            case.body = fitting(case.body)
    return case


def consistent(asked: dict[str, Any]) -> dict[str, Any]:
    """`level` such that each tail of the interval holds a draw (api.md); some values are texts."""
    if not {"samples", "level"} & asked.keys():
        return {}
    samples = min(max(4, int(asked.get("samples") or 100)), 100)
    level = min(float(asked.get("level") or 0.95), 1 - 2 / samples)
    return {"samples": samples, "level": level}


def fitting(body: dict[str, Any]) -> dict[str, Any]:
    """An inference request with as many numbers as its shape says, and each output once."""
    n = 1 + len(str(body)) % 3
    tensor = {"name": "images", "datatype": "UINT8", "shape": [n, 28, 28]}
    data = [i % 256 for i in range(n * 784)]
    result = {**body, "inputs": [{**tensor, "data": data}]}
    if body.get("parameters"):
        result["parameters"] = {**body["parameters"], **consistent(body["parameters"])}
    if body.get("outputs"):
        result["outputs"] = list({output["name"]: output for output in body["outputs"]}.values())
    return result


@pytest.fixture(scope="module")
def asked(make_server: Callable[..., Server]) -> Iterator[tuple[Server, Counter[tuple[str, int]]]]:
    """A service that wants its key for everything it may, and what it has answered so far.

    In the end every operation must have been answered with success, and nothing be a fault.
    """
    server = make_server(**SETTINGS)
    statuses: Counter[tuple[str, int]] = Counter()
    yield server, statuses
    for operation in {operation for operation, _ in statuses}:
        assert statuses[operation, 200] >= 3, operation
    assert not [line for line in server.logged() if line["level"] in ("error", "critical")]


@schema.parametrize()
@settings(
    max_examples=fuzz_examples(20), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
def test_whatever_is_asked_the_answer_is_as_declared(
    case: Case, asked: tuple[Server, Counter[tuple[str, int]]]
) -> None:
    server, statuses = asked
    response = case.call(base_url=server.url)
    statuses[case.operation.label, response.status_code] += 1
    case.validate_response(response)
