"""`python -m tests.support.ray.driver`: several Ray nodes on this machine, controlled by lines.

Each line of the standard input is a JSON object, `{"do": "roll_out", …}`. Each is answered by one
on the standard output, `{"ok": …}` or `{"error": …}`. When the input ends, everything is stopped.
It is a process of its own, because Ray keeps threads, sockets and loggers wherever it is used.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
import ray
import yaml
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from tests.support.paths import ROOT
from tests.support.service.server import free_port

Json = dict[str, Any]

APPLICATION, DEPLOYMENT = "digits", "DigitReader"
TIMEOUT_S = 90
PARENT = os.getppid()
NODE: Json = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
HEAD = {"num_cpus": 0, "_system_config": {"metrics_report_interval_ms": 500}, **NODE}


class Driver:
    """The cluster: a head without CPUs, for the proxy and the controller, and workers of one."""

    def __init__(self) -> None:
        self._cluster = Cluster(initialize_head=True, head_node_args=HEAD)
        self._nodes: dict[str, Any] = {}  # workers, by their IDs
        self._config: Json = yaml.safe_load((ROOT / "deploy" / "ray.yaml").read_text())
        # One proxy: those of the other nodes would want the same port of the same machine.
        self._config["proxy_location"] = "HeadOnly"
        self._config["http_options"] |= {"host": "127.0.0.1", "port": free_port()}
        ray.init(address=self._cluster.address, log_to_driver=False)
        serve.start(proxy_location="HeadOnly", http_options=self._config["http_options"])

    def stop(self) -> None:
        """Stop everything."""
        serve.shutdown()
        ray.shutdown()
        self._cluster.shutdown()

    # The commands

    def url(self) -> str:
        """Return the proxy's address."""
        options = self._config["http_options"]
        return f"http://{options['host']}:{options['port']}"

    def add_node(self) -> str:
        """Add a worker of one CPU; returns its ID."""
        node = self._cluster.add_node(num_cpus=1, **NODE)
        self._nodes[node.node_id] = node
        return str(node.node_id)

    def remove_node(self, node_id: str) -> None:
        """Kill all of a node's processes at once, as losing the machine would."""
        self._cluster.remove_node(self._nodes.pop(node_id), allow_graceful=False)

    def deploy(
        self, settings: dict[str, str], replicas: int, deployment: Json | None = None, **args: Any
    ) -> Json:
        """Deploy `ray.yaml` with other settings and arguments, and wait until all replicas run."""
        (application,) = self._config["applications"]
        application["runtime_env"]["env_vars"] = settings
        application["args"] |= {"min_replicas": replicas, "max_replicas": replicas, **args}
        application["deployments"] = [
            {"name": DEPLOYMENT, "user_config": {"checkpoint": None}, **(deployment or {})}
        ]
        return self._deployed(replicas)

    def roll_out(self, user_config: Any, *, wait: bool = True) -> Json:
        """Deploy the same with another `user_config`, as `serve deploy` would."""
        (application,) = self._config["applications"]
        application["deployments"][0]["user_config"] = user_config
        return self._deployed() if wait else self._apply()

    def status(self) -> Json:
        """Return the state of the application, the deployment and its replicas."""
        applications = _get_global_client().get_serve_details()["applications"]
        application = applications.get(APPLICATION, {})  # absent for a moment
        deployment = application.get("deployments", {}).get(DEPLOYMENT, {})
        return {
            "application": [application.get("status", "DEPLOYING"), application.get("message")],
            "deployment": [deployment.get("status"), deployment.get("message")],
            "replicas": [
                {key: replica.get(key) for key in ("replica_id", "state", "pid", "node_id")}
                for replica in deployment.get("replicas") or []
            ],
        }

    def wait(self, replicas: int, timeout_s: float = TIMEOUT_S) -> Json:
        """Wait until exactly this many replicas run and the deployment is healthy."""
        return _until(
            self.status,
            lambda status: (
                status["deployment"][0] == "HEALTHY"
                and [replica["state"] for replica in status["replicas"]] == ["RUNNING"] * replicas
            ),
            timeout_s,
        )

    def wait_for_message(self, text: str) -> Json:
        """Wait until the deployment's message contains a text."""
        return _until(
            self.status, lambda status: text in (status["deployment"][1] or ""), TIMEOUT_S
        )

    def metrics(self) -> str:
        """Return the service's metrics as all nodes export them to Prometheus."""
        texts = [
            httpx.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}").text
            for node in ray.nodes()
            if node["Alive"]
        ]
        lines = "\n".join(texts).splitlines()
        return "".join(f"{line}\n" for line in lines if line.startswith("ray_mnn_"))

    def kill_replica(self, pid: int) -> None:
        """Kill a replica's process."""
        os.kill(pid, signal.SIGKILL)

    def _apply(self) -> Json:
        _get_global_client().deploy_apps(ServeDeploySchema(**self._config))
        return {}

    def _deployed(self, replicas: int | None = None) -> Json:
        self._apply()
        status = _until(
            self.status, lambda status: status["application"][0] != "DEPLOYING", TIMEOUT_S
        )
        if status["application"][0] != "RUNNING":
            return status
        return status if replicas is None else self.wait(replicas)


def _until(look: Callable[[], Json], enough: Callable[[Json], bool], timeout_s: float) -> Json:
    deadline = time.monotonic() + timeout_s
    while not enough(found := look()):
        if os.getppid() != PARENT:
            raise SystemExit("the parent process has ended")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{found}")
        time.sleep(0.1)
    return found


def main() -> None:
    """Execute commands until the input ends."""
    # Ray prints to the standard output; the answers go to a copy of it.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    driver = Driver()
    try:
        print(json.dumps({"ok": None}), file=answers, flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = {"ok": getattr(driver, request.pop("do"))(**request)}
            except Exception as error:  # noqa: BLE001 - the answer carries it
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer, default=str), file=answers, flush=True)
    finally:
        driver.stop()


if __name__ == "__main__":
    main()
