"""The alert rules are valid, fire on synthetic series, use existing metrics and name a runbook."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.paths import ROOT
from tests.support.service.server import Server

FOLDER = ROOT / "deploy" / "prometheus"
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
JOBS = {
    scraped["job_name"]
    for scraped in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
}
TESTS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
RECORDS = {
    rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule
}


def promtool(*arguments: str, given: str | None = None) -> str:
    """Run promtool and return its output; fail the test if it reports an error."""
    found = shutil.which("promtool")
    if found is None:
        reason = "promtool is not installed (Debian's package prometheus has it)"
        if os.environ.get("MNN_REQUIRE_PROMTOOL"):
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(
        [found, *arguments],
        check=False,
        input=given,
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_promtool_accepts_the_rules_and_the_configuration() -> None:
    assert f"{len(ALERTS) + len(RECORDS)} rules found" in promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "prometheus.yml")


def test_one_missed_evaluation_of_a_recording_rule_leaves_no_gap() -> None:
    lookback_s = 5 * 60  # Prometheus treats older values as stale
    recording = [group for group in RULES["groups"] if any("record" in r for r in group["rules"])]
    assert recording
    for group in recording:
        minutes = re.fullmatch(r"(\d+)m", group["interval"])
        assert minutes is not None
        assert 3 * 60 * int(minutes[1]) < lookback_s


def test_each_alert_fires_on_its_condition_and_is_silent_before() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_each_alert_is_tested_firing_and_silent() -> None:
    trials = [trial for test in TESTS for trial in test["alert_rule_test"]]
    fired = {trial["alertname"] for trial in trials if trial.get("exp_alerts")}
    silent = {trial["alertname"] for trial in trials if not trial.get("exp_alerts")}
    assert fired == silent == {rule["alert"] for rule in ALERTS}


Series = tuple[str, frozenset[tuple[str, str]]]

# These series appear with the first request, at 1: good as a denominator, not inside increase().
CREATED_ON_FIRST_USE = {("mnn_requests_total", "method", "POST")}


def exposed(client: httpx.Client) -> set[Series]:
    return {
        (sample.name, frozenset(sample.labels.items()))
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def fresh(make_server: Callable[..., Server]) -> Iterator[tuple[set[Series], set[Series]]]:
    """The series of a new service, before and after its first request."""
    with make_server(device="cpu").client() as client:
        before = exposed(client)
        client.post("/predict", files={"file": b"not an image"})
        yield before, exposed(client)


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """The metrics in an expression, each with its label matchers: label, operator, value."""
    for name, matchers in re.findall(r"\b([a-z_][\w:]*)(\{[^}]*\})?(?![\w:(])", expression):
        yield name, re.findall(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"', matchers)


def test_the_rules_use_series_that_exist_from_the_start(
    fresh: tuple[set[Series], set[Series]],
) -> None:
    before, after = fresh
    names = {name for name, _ in before}
    for rule in (rule for group in RULES["groups"] for rule in group["rules"]):
        title = rule.get("alert") or rule["record"]
        found = [each for each in selectors(rule["expr"]) if re.match("mnn|process_|up$", each[0])]
        assert found, title
        for name, matchers in found:
            assert name in names | RECORDS | {"up"}, f"{title}: {name}"
            for label, operator, values in matchers:
                assert operator in {"=", "=~"}, f"{title}: {operator}"
                for value in values.split("|"):
                    if label == "job":
                        assert value in JOBS, f"{title}: {value}"
                        continue
                    exposed_series = (
                        after if (name, label, value) in CREATED_ON_FIRST_USE else before
                    )
                    assert any(
                        name == known and (label, value) in labels
                        for known, labels in exposed_series
                    ), f'{title}: {name}{{{label}="{value}"}}'


def test_the_synthetic_series_look_like_those_of_the_service(
    fresh: tuple[set[Series], set[Series]],
) -> None:
    before, after = fresh
    labels_of = {name: {label for label, _ in labels} for name, labels in after}
    for series in (series for test in TESTS for series in test["input_series"]):
        ((name, matchers),) = selectors(series["series"])
        labels = {label: value for label, _, value in matchers if label not in {"instance", "job"}}
        if name == "up":
            continue
        assert labels.keys() <= labels_of[name], series
        if (name, frozenset(labels.items())) not in before:
            assert not series["values"].startswith("0"), f"never exposed at 0: {series}"


def test_the_memory_alert_names_its_share_of_the_compose_limit() -> None:
    (rule,) = (rule for rule in ALERTS if rule["alert"] == "MNNMemoryHigh")
    threshold = float(rule["expr"].rpartition(">")[2])
    limit = re.search(r"MNN_MEMORY:-(\d+)g", (ROOT / "docker-compose.yml").read_text())
    comment = re.search(r"(\d+) % of the (\d+) GiB limit", (FOLDER / "alerts.yml").read_text())
    assert limit is not None
    assert comment is not None
    assert int(comment[2]) == int(limit[1])
    assert round(100 * threshold / (int(limit[1]) * 2**30)) == int(comment[1])


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_is_in_the_runbook(rule: dict[str, Any]) -> None:
    document, anchor = rule["annotations"]["runbook"].split("#")
    assert anchor in anchors(ROOT / document)
    assert f"`{rule['alert']}`" in (ROOT / document).read_text()
    assert rule["labels"]["severity"] in {"page", "warn"}


def test_promtool_accepts_the_exposed_metrics(client: httpx.Client) -> None:
    promtool("check", "metrics", given=client.get("/metrics").text)
