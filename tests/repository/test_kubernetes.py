"""The Kubernetes example matches the Kubernetes schemas and the service."""

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service import Settings, create_app
from tests.support.paths import ROOT

VERSION = "1.37"
KINDS = ["Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"]


@pytest.fixture
def objects() -> dict[str, dict[str, Any]]:
    """The objects of the example, by kind."""
    text = (ROOT / "deploy" / "kubernetes.yaml").read_text()
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


@pytest.fixture
def container(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(container)


def test_each_object_matches_its_schema(objects: dict[str, dict[str, Any]]) -> None:
    assert list(objects) == KINDS
    for each in objects.values():
        kubernetes_validate.validate(each, VERSION, strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_check_finds_a_misspelt_field(
    objects: dict[str, dict[str, Any]], kind: str
) -> None:
    objects[kind]["spec"]["maxUnavailble"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="maxUnavailble"):
        kubernetes_validate.validate(objects[kind], VERSION, strict=True)


def test_the_objects_select_the_same_pods(objects: dict[str, dict[str, Any]]) -> None:
    deployment, service, budget, scaler = (objects[kind] for kind in KINDS)
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"]  # the autoscaler sets it
    for spread in pod["spec"]["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"] == labels


def test_the_probes_use_existing_paths_and_ports(container: dict[str, Any]) -> None:
    known = set(create_app(Settings()).openapi()["paths"])
    (port,) = container["ports"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert port["containerPort"] == int(re.findall(r"^EXPOSE (\d+)", dockerfile, re.MULTILINE)[0])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        request = container[probe]["httpGet"]
        assert request["path"] in known
        assert request["port"] == port["name"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"


def test_the_grace_period_covers_the_longest_shutdown(
    objects: dict[str, dict[str, Any]], container: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in container["env"]:
        assert variable["name"].removeprefix("MNN_").lower() in Settings.model_fields
        monkeypatch.setenv(variable["name"], variable["value"])
    settings = Settings()
    drain_s = settings.drain_delay_s + settings.body_timeout_s + settings.request_timeout_s
    grace_s = objects["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s >= drain_s + 5


def test_a_pod_has_the_least_privileges(
    objects: dict[str, dict[str, Any]], container: dict[str, Any]
) -> None:
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    resources = container["resources"]
    assert (
        resources["requests"]["cpu"] == resources["limits"]["cpu"]
    )  # the number of worker threads follows the limit
