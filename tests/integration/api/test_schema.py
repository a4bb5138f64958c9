"""Schemathesis sends what the OpenAPI document allows, and what it does not.

All its checks apply: no 5xx, nothing undeclared, valid requests are answered, invalid ones are
rejected, methods and keys are as declared. It finds new routes by itself. A normal run is short;
`MNN_FUZZ_EXAMPLES=2000` makes it thorough.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.generation.case import Case

from model import load_checkpoint
from model.checkpoint import BUNDLED
from service import Settings, create_app
from service.api.openapi import operations
from tests.support.fuzz.strategies import FORMATS, fuzz_examples, image_files, image_files_of
from tests.support.service.api_key import KEY
from tests.support.service.server import Server

pytestmark = pytest.mark.not_through_ray("it reads the log of a process")

DRAWS = 40  # of `keyed_server`
SETTINGS = {"draws": DRAWS, "api_key": KEY, "require_api_key": True}
SERVED = {"name": "digits", "version": load_checkpoint(BUNDLED).version(DRAWS)}
CONFIG = {
    "auth": {"openapi": {"key": {"bearer": KEY}}},
    # 413 is for more files than allowed.
    "checks": {"negative_data_rejection": {"expected-statuses": [400, 401, 404, 405, 413, 422]}},
}


def described() -> schemathesis.BaseSchema:
    """The document of such a service, with real image files for what it calls pictures."""
    document = create_app(Settings(**SETTINGS)).openapi()
    batch = document["paths"]["/predict/batch"]["post"]["requestBody"]["content"]
    # Schemathesis takes the media type of each file for that of all of them together.
    del batch["multipart/form-data"]["encoding"]
    for path, _, operation in operations(document):
        if path.endswith("/infer"):
            # They must fit the body, byte by byte; test_infer.py sends bodies that do.
            del operation["requestBody"]["content"]["application/octet-stream"]
            operation["parameters"] = [
                p for p in operation["parameters"] if p.get("in") != "header"
            ]
    schemathesis.openapi.format("binary", image_files())
    for form in FORMATS:
        schemathesis.openapi.media_type(f"image/{form.lower()}", image_files_of(form))
    return schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(CONFIG))


schema = described()


def keep_rules(case: Case) -> None:
    """Change a valid request so that it also keeps the rules that no document can state."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.query:
        case.query = {**case.query, **consistent(case.query)}
    if len(str(case.path_parameters)) % 4:  # most requests ask for the served model
        case.path_parameters = {name: SERVED[name] for name in case.path_parameters or {}}
    if case.path.endswith("/infer") and isinstance(case.body, dict):
        case.body = fitting(case.body)


def consistent(query: dict[str, Any]) -> dict[str, Any]:
    """Return a `level` for which each tail of the interval holds a draw; some values are texts."""
    if not {"samples", "level"} & query.keys():
        return {}
    samples = min(max(4, int(query.get("samples") or DRAWS)), DRAWS)
    level = min(float(query.get("level") or 0.95), 1 - 2 / samples)
    return {"samples": samples, "level": level}


def fitting(body: dict[str, Any]) -> dict[str, Any]:
    """Return an inference request with as many numbers as its shape says, and each output once."""
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
def answered(keyed_server: Server) -> Iterator[Counter[tuple[str, int]]]:
    """Count answers by operation and status.

    In the end every operation must have succeeded, and the log must hold no error.
    """
    statuses: Counter[tuple[str, int]] = Counter()
    yield statuses
    for operation in {operation for operation, _ in statuses}:
        assert statuses[operation, 200] >= 3, operation
    assert not [line for line in keyed_server.logged() if line["level"] in ("error", "critical")]


@schema.parametrize()
@settings(
    max_examples=fuzz_examples(12), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
def test_every_answer_is_as_declared(
    case: Case, keyed_server: Server, answered: Counter[tuple[str, int]]
) -> None:
    keep_rules(case)
    response = case.call(base_url=keyed_server.url)
    answered[case.operation.label, response.status_code] += 1
    case.validate_response(response)
