"""The alert rules: valid, tried on made-up series, about metrics that exist, with a runbook."""

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
from tests.support.server import Server

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
    """Run Prometheus's own checker; fails with what it says."""
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
    """What the headings of a document can be linked by."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_prometheus_takes_the_rules_and_the_configuration() -> None:
    assert f"{len(ALERTS) + len(RECORDS)} rules found" in promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "prometheus.yml")


def test_a_missed_evaluation_of_a_record_leaves_no_gap() -> None:
    lookback_s = 5 * 60  # Prometheus's: a value that is older is none
    recording = [group for group in RULES["groups"] if any("record" in r for r in group["rules"])]
    assert recording
    for group in recording:
        minutes = re.fullmatch(r"(\d+)m", group["interval"])
        assert minutes is not None
        assert 3 * 60 * int(minutes[1]) < lookback_s


def test_each_alert_fires_on_what_it_is_for_and_is_silent_before() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_no_alert_is_without_a_trial_of_both_kinds() -> None:
    trials = [trial for test in TESTS for trial in test["alert_rule_test"]]
    fired = {trial["alertname"] for trial in trials if trial.get("exp_alerts")}
    silent = {trial["alertname"] for trial in trials if not trial.get("exp_alerts")}
    assert fired == silent == {rule["alert"] for rule in ALERTS}


Series = tuple[str, frozenset[tuple[str, str]]]

# Their series come into being with their first request, at 1: good enough for what others are
# measured against, not for what is counted from nothing.
BORN_LATER = {("mnn_requests_total", "method", "POST")}


def exposed(client: httpx.Client) -> set[Series]:
    return {
        (sample.name, frozenset(sample.labels.items()))
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def fresh(make_server: Callable[..., Server]) -> Iterator[tuple[set[Series], set[Series]]]:
    """The series of a service that nobody has asked anything yet, and after one answer."""
    with make_server(device="cpu").client() as client:
        before = exposed(client)
        client.post("/predict", files={"file": b"no picture"})
        yield before, exposed(client)


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Metrics in an expression, each with what it asks of labels: name, operator, value."""
    for name, asked in re.findall(r"\b([a-z_][\w:]*)(\{[^}]*\})?(?![\w:(])", expression):
        yield name, re.findall(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"', asked)


def test_the_rules_speak_of_series_that_the_service_has_from_the_start(
    fresh: tuple[set[Series], set[Series]],
) -> None:
    before, after = fresh
    names = {name for name, _ in before}
    for rule in (rule for group in RULES["groups"] for rule in group["rules"]):
        title = rule.get("alert") or rule["record"]
        found = [each for each in selectors(rule["expr"]) if re.match("mnn|process_|up$", each[0])]
        assert found, title
        for name, asked in found:
            assert name in names | RECORDS | {"up"}, f"{title}: {name}"
            for label, operator, told in asked:
                assert operator in {"=", "=~"}, f"{title}: {operator}"
                for wanted in told.split("|"):
                    if label == "job":
                        assert wanted in JOBS, f"{title}: {wanted}"
                        continue
                    there = after if (name, label, wanted) in BORN_LATER else before
                    assert any(
                        name == had and (label, wanted) in labels for had, labels in there
                    ), f'{title}: {name}{{{label}="{wanted}"}}'


def test_the_trials_are_of_series_as_the_service_exposes_them(
    fresh: tuple[set[Series], set[Series]],
) -> None:
    before, after = fresh
    labels_of = {name: {label for label, _ in labels} for name, labels in after}
    for series in (series for test in TESTS for series in test["input_series"]):
        ((name, asked),) = selectors(series["series"])
        labels = {label: told for label, _, told in asked if label not in {"instance", "job"}}
        if name == "up":
            continue
        assert labels.keys() <= labels_of[name], series
        if (name, frozenset(labels.items())) not in before:
            assert not series["values"].startswith("0"), f"never exposed at 0: {series}"


def test_the_memory_alert_is_at_the_share_of_the_limit_that_it_names() -> None:
    (rule,) = (rule for rule in ALERTS if rule["alert"] == "MNNMemory")
    threshold = float(rule["expr"].rpartition(">")[2])
    limit = re.search(r"MNN_MEMORY:-(\d+)g", (ROOT / "docker-compose.yml").read_text())
    told = re.search(r"(\d+) % of the (\d+) GiB", (FOLDER / "alerts.yml").read_text())
    assert limit is not None
    assert told is not None
    assert int(told[2]) == int(limit[1])
    assert round(100 * threshold / (int(limit[1]) * 2**30)) == int(told[1])


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_is_in_the_runbook(rule: dict[str, Any]) -> None:
    document, anchor = rule["annotations"]["runbook"].split("#")
    assert anchor in anchors(ROOT / document)
    assert f"`{rule['alert']}`" in (ROOT / document).read_text()
    assert rule["labels"]["severity"] in {"page", "warn"}


def test_prometheus_finds_no_fault_in_the_metrics_themselves(client: httpx.Client) -> None:
    promtool("check", "metrics", given=client.get("/metrics").text)
