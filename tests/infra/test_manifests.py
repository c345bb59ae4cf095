"""What images, Compose and Kubernetes are given: valid by their own schemas, and closed."""

import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

INFRA = Path(__file__).parents[2] / "infra"
KUBERNETES = ("1.31", "1.37")
KUBECTL = shutil.which("kubectl")
SECRETS = {
    "postgres-password", "s3-access-key", "s3-secret-key", "mlflow-password", "mlflow-csrf-key",
    "prefect-auth",
}  # fmt: skip
TEMPLATE = json.loads((INFRA / "k8s" / "job-template.json").read_text())


def compose():
    return yaml.safe_load((INFRA / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def objects():
    """All that `kubectl apply -k infra` would send."""
    if KUBECTL is None:
        pytest.skip("needs kubectl, which renders kustomizations")
    made = subprocess.run(
        [KUBECTL, "kustomize", INFRA], capture_output=True, text=True, check=True, timeout=60
    )
    return [each for each in yaml.safe_load_all(made.stdout) if each]


def pods(objects):
    """Name -> (kind, pod specification), with the Job that the worker makes of a flow run."""
    found = {}
    for each in objects:
        spec = each.get("spec", {})
        spec = spec["jobTemplate"]["spec"] if each["kind"] == "CronJob" else spec
        if "template" in spec:
            found[each["metadata"]["name"]] = (each["kind"], spec["template"])
    (node,) = runtime()["spec"]["template"]["spec"]["replicatedJobs"]
    return found | {
        "flow-run": ("Job", job()["spec"]["template"]),
        "node": ("Job", node["template"]["spec"]["template"]),
    }


def job():
    """The manifest of a flow run, with the template's defaults in their places."""
    given = {
        name: setting.get("default")
        for name, setting in TEMPLATE["variables"]["properties"].items()
    } | {"name": "x", "command": ["true"], "labels": {}, "env": [{"name": "A", "value": "b"}]}

    def filled(value):
        if isinstance(value, dict):
            return {name: filled(each) for name, each in value.items()}
        if isinstance(value, list):
            return [filled(each) for each in value]
        if isinstance(value, str) and (whole := re.fullmatch(r"{{ (\w+) }}", value)):
            return given[whole[1]]
        return (
            re.sub(r"{{ (\w+) }}", lambda m: given[m[1]], value)
            if isinstance(value, str)
            else value
        )

    return filled(TEMPLATE["job_configuration"]["job_manifest"])


def runtime():
    return yaml.safe_load((INFRA / "k8s" / "train-runtime.yaml").read_text())


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files_are_what_compose_reads(name):
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(yaml.safe_load((INFRA / name).read_text()), json.loads(schema.read_text()))


def test_compose_publishes_on_loopback_only():
    published = [port for each in compose()["services"].values() for port in each.get("ports", [])]
    assert published
    for port in published:
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


@pytest.mark.parametrize("name", compose()["services"])
def test_compose_contains_its_services(name):
    service = compose()["services"][name]
    assert service["user"].startswith("${ALIGNTUNE_UID:?")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.keys().isdisjoint({"privileged", "cap_add", "network_mode", "pid", "ipc"})
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    if name != "backup":
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"
    assert set(service["secrets"]) <= SECRETS


def test_compose_keeps_databases_from_workers():
    services, networks = compose()["services"], compose()["networks"]
    assert networks["servers"]["internal"] is True
    assert services["postgres"]["networks"] == services["s3"]["networks"] == ["servers"]
    assert "servers" not in services["worker"]["networks"]
    assert set(services["worker"]["secrets"]) == {"mlflow-password", "prefect-auth"}


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_objects_are_what_a_cluster_takes(objects, version):
    made = job()
    for ignored in ("parallelism", "completions"):  # Prefect wants them where a cluster does not
        del made["spec"]["template"]["spec"][ignored]
    for each in [*objects, made]:
        kubernetes_validate.validate(each, version, strict=True)


def test_training_over_several_nodes_is_what_its_operator_takes():
    """The types' own validation, and that nothing was left out of them on the way."""
    from kubeflow_trainer_api import models

    train = yaml.safe_load((INFRA / "k8s" / "train-job.yaml").read_text())
    for given, kind in (
        (runtime(), models.TrainerV1alpha1TrainingRuntime),
        (train, models.TrainerV1alpha1TrainJob),
    ):
        understood = kind.from_dict(given)
        assert json.loads(understood.to_json()) == given
    assert train["spec"]["runtimeRef"]["name"] == runtime()["metadata"]["name"]
    node = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "node"}}
    node["spec"] = pods([])["node"][1]["spec"]
    kubernetes_validate.validate(node, KUBERNETES[-1], strict=True)
    processes = int(train["spec"]["trainer"]["args"][-1].partition("=")[2])
    gpus = int(train["spec"]["trainer"]["resourcesPerNode"]["limits"]["nvidia.com/gpu"])
    assert processes == train["spec"]["trainer"]["numNodes"] * gpus


def test_the_job_template_is_one_of_its_worker():
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    used = set(re.findall(r"{{ (\w+) }}", json.dumps(TEMPLATE["job_configuration"])))
    assert used == TEMPLATE["variables"]["properties"].keys()
    values = {
        name: setting.get("default")
        for name, setting in TEMPLATE["variables"]["properties"].items()
    } | {"name": "x", "command": "true", "env": {}, "labels": {}}
    configuration = TEMPLATE["job_configuration"] | {
        "job_manifest": job(), "namespace": values["namespace"],
        **{name: values[name] for name in ("name", "command", "env", "labels", "annotations")},
    }  # fmt: skip
    made = KubernetesWorkerJobConfiguration.model_validate(configuration)
    assert made.job_manifest["spec"]["template"]["spec"]["containers"][0]["command"][-1] == "run"


def test_pods_are_restricted(objects):
    """By the rules of the Pod Security Standard `restricted`, and with a root nobody writes to."""
    (namespace,) = (each for each in objects if each["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert pods(objects).keys() >= {"postgres", "s3", "mlflow", "prefect", "worker", "backup"}
    for name, (_, template) in pods(objects).items():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec.keys().isdisjoint({"hostNetwork", "hostPID", "hostIPC"}), name
        assert {next(k for k in each if k != "name") for each in spec["volumes"]} <= {
            "emptyDir", "secret", "configMap", "persistentVolumeClaim",
        }, name  # fmt: skip
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}, name
            assert not container["image"].endswith(":latest"), name
            assert ":" in container["image"], name


def test_servers_are_probed_and_kept_through_drains(objects):
    for name, (kind, template) in pods(objects).items():
        if kind in ("Deployment", "StatefulSet"):
            assert template["spec"]["containers"][0].keys() >= {"startupProbe", "livenessProbe"}, (
                name
            )
    kept = {
        each["spec"]["selector"]["matchLabels"]["app"]
        for each in objects
        if each["kind"] == "PodDisruptionBudget"
    }
    assert kept == {"mlflow", "prefect"}


def test_the_network_is_closed_but_for_what_is_listed(objects):
    policies = {
        each["metadata"]["name"]: each["spec"]
        for each in objects
        if each["kind"] == "NetworkPolicy"
    }
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    reached = {
        block["ipBlock"]["cidr"]: block["ipBlock"]["except"]
        for policy in policies.values()
        for rule in policy.get("egress", [])
        for block in rule.get("to", [])
        if "ipBlock" in block
    }
    assert reached == {"0.0.0.0/0": ["169.254.0.0/16"]}
    known = {template["metadata"]["labels"]["app"] for _, template in pods(objects).values()}
    named = set(re.findall(r"'app', 'operator': 'In', 'values': \[([^]]*)\]", str(policies)))
    assert {name.strip("' ") for names in named for name in names.split(",")} <= known


def test_secrets_are_references(objects):
    """No object is a secret, and every key that is mounted is one that secrets.sh makes."""
    assert "Secret" not in {each["kind"] for each in objects}
    mounted = {
        item["key"]
        for _, template in pods(objects).values()
        for volume in template["spec"]["volumes"]
        for item in volume.get("secret", {}).get("items", [])
    }
    assert mounted == SECRETS
    for _, template in pods(objects).values():
        for variable in template["spec"]["containers"][0].get("env", []):
            value = variable.get("value", "/run/secrets/")
            secret = re.search("(?i)password|token|access_key", variable["name"])
            assert not secret or value.startswith("/run/secrets/"), variable


def test_images_of_both_are_the_same_versions(objects):
    named = {each["image"] for each in compose()["services"].values()}
    (postgres,) = {name for name in named if ":" in name}
    used = {c["image"] for _, t in pods(objects).values() for c in t["spec"]["containers"]}
    assert postgres in used
    assert {name.partition(":")[0] for name in used} == {name.partition(":")[0] for name in named}
    assert len(used) == 3


def test_the_dockerfile_has_no_findings():
    hadolint = Path(sys.executable).with_name("hadolint")
    said = subprocess.run(
        [hadolint, INFRA / "Dockerfile"], capture_output=True, text=True, timeout=60
    )
    assert (said.returncode, said.stdout) == (0, "")
    lines = (INFRA / "Dockerfile").read_text().splitlines()
    users = [line for line in lines if line.startswith("USER ")]
    assert users == ["USER 10001:10001"]
    # Both images come from the stage that has the user.
    assert {line for line in lines if line.startswith("FROM run AS ")} == {
        "FROM run AS servers", "FROM run AS worker",
    }  # fmt: skip
    assert not any(re.match(r"(?i)(arg|env) .*(token|password|secret)", line) for line in lines)


def requirements(name):
    """Package -> (version, number of hashes) of a lock."""
    text = (INFRA / "lock" / f"{name}.txt").read_text()
    return {
        found[1]: (found[2], found[0].count("--hash=sha256:"))
        for found in re.finditer(
            r"^([a-z0-9-]+)==(\S+)(?: ;[^\\\n]+)?(?: ?\\\n    --hash=\S+)*", text, re.MULTILINE
        )
    }


@pytest.mark.parametrize("name", ["build", "servers", "worker", "torch-gpu"])
def test_locks_have_hashes_and_no_addresses(name):
    text = (INFRA / "lock" / f"{name}.txt").read_text()
    found = requirements(name)
    assert all(hashes > 0 for _, hashes in found.values())
    assert len(found) == len(re.findall(r"^[a-z]", text, re.MULTILINE))
    assert "://" not in text


def test_locks_are_made_of_the_constraints_and_whole():
    import tomllib

    pinned = dict(
        line.split("==") for line in (INFRA.parent / "constraints.txt").read_text().split()
    )
    worker = requirements("worker") | requirements("torch-gpu")
    for name, (version, _) in (worker | requirements("servers")).items():
        assert version == pinned.get(name, version), name
    assert requirements("torch-cpu")["torch"][0] == worker["torch"][0] == pinned["torch"]
    project = tomllib.loads((INFRA.parent / "pyproject.toml").read_text())["project"]
    for wanted, locked in (
        (project["dependencies"], worker),
        (project["optional-dependencies"]["servers"], requirements("servers")),
    ):
        names = {re.match(r"[\w.-]+", each)[0].lower().replace("_", "-") for each in wanted}
        assert names <= locked.keys() | {"vadersentiment"}, names - locked.keys()
