"""Schemathesis asks what the OpenAPI document allows, and what it does not, over a real socket.

All its checks apply: no 5xx, nothing undeclared (statuses, media types, headers, bodies), what is
allowed is answered, what is not is refused, methods and keys are as declared. A normal run is
short; `MNN_FUZZ_EXAMPLES=2000` makes it thorough. A route that is declared is asked by itself.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.generation.case import Case
from schemathesis.hooks import HookContext

from service import Settings, create_app
from tests.conftest import Server
from tests.strategies import FORMATS, fuzz_examples, picture_files, picture_files_of

KEY = "sixteen characters or more"
SETTINGS = {"device": "cpu", "api_key": KEY, "key_for_all": True}
CONFIG = {
    "auth": {"openapi": {"key": {"bearer": KEY}}},
    # What is not allowed is refused with one of these: api.md has 413 for more files than allowed.
    "checks": {"negative_data_rejection": {"expected-statuses": [401, 405, 413, 422]}},
}


def described() -> schemathesis.BaseSchema:
    """The document of such a service, with real pictures for what it calls pictures."""
    document = create_app(Settings(**SETTINGS)).openapi()
    batch = document["paths"]["/predict/batch"]["post"]["requestBody"]["content"]
    # Schemathesis takes the media type of each file for that of all of them together.
    del batch["multipart/form-data"]["encoding"]
    schemathesis.openapi.format("binary", picture_files())
    for form in FORMATS:
        schemathesis.openapi.media_type(f"image/{form.lower()}", picture_files_of(form))
    return schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(CONFIG))


schema = described()


@schema.hook
def map_case(_context: HookContext, case: Case) -> Case:
    """Have a request that is allowed keep to what no document can say (api.md on `level`)."""
    allowed = case.meta is not None and case.meta.generation.mode.is_positive
    if allowed and case.query and "samples" in case.query:
        samples = max(4, int(case.query["samples"]))  # some of its values are texts
        level = min(float(case.query.get("level", 0.95)), 1 - 2 / samples)
        case.query.update(samples=samples, level=level)
    return case


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
