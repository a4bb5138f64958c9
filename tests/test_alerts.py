"""The alert rules: valid, tried on made-up series, about metrics that exist, with a runbook."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
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


def test_each_alert_fires_on_what_it_is_for_and_is_silent_before() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_no_alert_is_without_a_trial_of_both_kinds() -> None:
    tried = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    trials = [trial for test in tried for trial in test["alert_rule_test"]]
    fired = {trial["alertname"] for trial in trials if trial.get("exp_alerts")}
    silent = {trial["alertname"] for trial in trials if not trial.get("exp_alerts")}
    assert fired == silent == {rule["alert"] for rule in ALERTS}


def test_the_rules_speak_of_metrics_that_the_service_has(client: httpx.Client) -> None:
    exposed = client.get("/metrics").text
    names = set(re.findall(r"^([a-z_]+)(?:\{| )", exposed, re.MULTILINE))
    for group in RULES["groups"]:
        for rule in group["rules"]:
            for name in re.findall(r"\b(?:mnn|process)_\w+", rule["expr"]):
                assert name in names, f"{rule.get('alert') or rule['record']}: {name}"
            for name in re.findall(r"\bmnn:[\w:]+", rule["expr"]):
                assert name in RECORDS
            for label, values in re.findall(r'(reason|decision|outcome)=~?"([^"]+)"', rule["expr"]):
                for value in values.split("|"):
                    assert f'{label}="{value}"' in exposed, value


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_is_in_the_runbook(rule: dict[str, Any]) -> None:
    document, anchor = rule["annotations"]["runbook"].split("#")
    assert anchor in anchors(ROOT / document)
    assert f"`{rule['alert']}`" in (ROOT / document).read_text()
    assert rule["labels"]["severity"] in {"page", "warn"}


def test_prometheus_finds_no_fault_in_the_metrics_themselves(client: httpx.Client) -> None:
    promtool("check", "metrics", given=client.get("/metrics").text)
