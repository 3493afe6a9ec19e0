"""The files in deploy/ keep to the schemas of Kubernetes, KubeRay and Dagster, and fit together."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
REPOSITORY = DEPLOY.parent
MANIFESTS = DEPLOY / "kubernetes"
RAY_CLUSTER = json.loads((Path(__file__).parent / "raycluster.schema.json").read_text())
KUBERNETES = "1.34"


def _documents(path):
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


FILES = sorted(path for path in MANIFESTS.glob("*.yaml") if path.name != "kustomization.yaml")
OBJECTS = [each for path in FILES for each in _documents(path)]


def _named(kind, name):
    [found] = [e for e in OBJECTS if (e["kind"], e["metadata"]["name"]) == (kind, name)]
    return found


def _templates(manifest):
    """Return the templates of the pods that an object starts."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "RayCluster":
        groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
        return [group["template"] for group in groups]
    return [spec["template"]] if "template" in spec else []


PODS = [template for each in OBJECTS for template in _templates(each)]
CONTAINERS = [each for pod in PODS for each in pod["spec"]["containers"]]


def _validate(manifest):
    """Refuse what Kubernetes would not take, fields that it does not know included."""
    validator = pytest.importorskip(
        "kubernetes_validate", reason="schemas of Kubernetes are 22 MB: `make test-faults`"
    )
    if manifest["kind"] == "RayCluster":
        jsonschema.validate(manifest, RAY_CLUSTER)
        for template in _templates(manifest):
            validator.validate({"apiVersion": "v1", "kind": "Pod", **template}, KUBERNETES, True)
    else:
        validator.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("manifest", OBJECTS, ids=lambda e: f"{e['kind']}-{e['metadata']['name']}")
def test_kubernetes_takes_a_manifest(manifest):
    _validate(manifest)


@pytest.mark.parametrize(
    ("kind", "name", "path", "wrong"),
    [
        ("Deployment", "dagster-daemon", ("spec", "replicas"), "1"),
        ("Deployment", "dagster-daemon", ("spec", "template", "spec", "container"), []),
        ("NetworkPolicy", "d4m", ("spec", "policyType"), []),
        ("RayCluster", "d4m", ("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        ("RayCluster", "d4m", ("spec", "workerGroups"), []),
        ("RayCluster", "d4m", ("spec", "headGroupSpec", "template", "spec", "containers"), {}),
    ],
)
def test_the_schemas_refuse_what_is_wrong(kind, name, path, wrong):
    manifest = copy.deepcopy(_named(kind, name))
    place = manifest
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = wrong
    with pytest.raises(Exception, match=re.escape(str(path[-1])) + "|is not of type"):
        _validate(manifest)


def test_ray_s_custom_resource_has_the_fields_that_kuberay_knows():
    jsonschema.validate(_named("RayCluster", "d4m"), RAY_CLUSTER)


def test_every_file_is_listed_and_no_secret_is_written_down():
    kustomization = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == [path.name for path in FILES]
    assert "Secret" not in {each["kind"] for each in OBJECTS}
    for line in (DEPLOY / "secrets.env.example").read_text().splitlines():
        assert line.startswith("#") or line.endswith("="), line


def _secrets():
    text = (DEPLOY / "secrets.env.example").read_text()
    return {line.partition("=")[0] for line in text.splitlines() if not line.startswith("#")}


def test_variables_come_from_the_objects_that_have_them():
    given = {"d4m-environment": {*_named("ConfigMap", "d4m-environment")["data"]}}
    given["d4m-secrets"] = _secrets()
    for container in CONTAINERS:
        for each in container.get("envFrom", []):
            [reference] = each.values()
            assert reference["name"] in given
        for each in container.get("env", []):
            for reference in each.get("valueFrom", {}).values():
                assert reference["key"] in given[reference["name"]], each["name"]
    wanted = set(re.findall(r"\{env: (\w+)\}", (DEPLOY / "dagster.yaml").read_text()))
    assert wanted <= set.union(*given.values())


def test_volumes_services_and_ports_are_there():
    claims = {each["metadata"]["name"] for each in OBJECTS if each["kind"].endswith("VolumeClaim")}
    for pod in PODS:
        volumes = {each["name"]: each for each in pod["spec"].get("volumes", [])}
        mounts = [m for c in pod["spec"]["containers"] for m in c.get("volumeMounts", [])]
        assert {each["name"] for each in mounts} - volumes.keys() <= {"data"}  # of Postgres
        for each in volumes.values():
            assert each.get("persistentVolumeClaim", {"claimName": ""})["claimName"] in {
                *claims,
                "",
            }
    labels = [pod["metadata"]["labels"] for pod in PODS]
    for service in (each for each in OBJECTS if each["kind"] == "Service"):
        selector = service["spec"]["selector"].items()
        [pod] = [pod for pod in PODS if selector <= pod["metadata"]["labels"].items()]
        ports = {p["containerPort"] for c in pod["spec"]["containers"] for p in c["ports"]}
        assert {each["port"] for each in service["spec"]["ports"]} == ports
    policy = _named("NetworkPolicy", "d4m")["spec"]["podSelector"]["matchLabels"].items()
    assert all(policy <= each.items() for each in labels)
    [server] = yaml.safe_load((DEPLOY / "workspace.yaml").read_text())["load_from"]
    code = _named("Service", server["grpc_server"]["host"])
    assert server["grpc_server"]["port"] == code["spec"]["ports"][0]["port"]
    assert _named("ConfigMap", "d4m-environment")["data"]["DAGSTER_PG_HOST"] == "postgres"
    assert _named("Service", "postgres")


def test_ray_gives_its_workers_their_share_of_a_busy_node():
    ray = _named("RayCluster", "d4m")
    for template in _templates(ray):
        [container] = template["spec"]["containers"]
        assert {"name": "RAY_worker_niceness", "value": "0"} in container["env"]


def test_the_driver_reaches_ray_and_both_have_the_version_of_the_constraints():
    ray = _named("RayCluster", "d4m")
    [driver] = [
        e["value"] for c in CONTAINERS for e in c.get("env", []) if e["name"] == "D4M_WORKERS"
    ]
    [head] = ray["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in head["ports"]}
    # KubeRay calls the head's service <cluster>-head-svc
    assert driver == f"ray://{ray['metadata']['name']}-head-svc:{ports['client']}"
    pinned = re.search(r"^ray==(.+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert ray["spec"]["rayVersion"] == pinned[1]


def test_dagster_takes_its_instance_which_differs_from_the_local_one_in_storage_alone():
    from dagster._config import validate_config
    from dagster._core.instance.config import dagster_instance_config_schema

    instance = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    local = yaml.safe_load((REPOSITORY / "dagster_home" / "dagster.yaml").read_text())
    result = validate_config(dagster_instance_config_schema(), instance)
    assert result.success, result.errors
    broken = validate_config(dagster_instance_config_schema(), instance | {"storage": {"pg": {}}})
    assert not broken.success
    assert {name: value for name, value in instance.items() if name not in local}.keys() == {
        "storage",
        "compute_logs",
    }
    assert local == {name: instance[name] for name in local}


def test_the_image_copies_files_that_exist():
    text = (DEPLOY / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (REPOSITORY / source).exists(), source
    extras = re.search(r"'\.\[(.+)\]'", text)
    assert extras is not None
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert all(
        re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras[1].split(",")
    )
