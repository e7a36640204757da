"""The README's way to install the chart: what it pushes is what the chart asks for."""

from __future__ import annotations

import re

from finetune_cli.demo.ownership import OPERATORS
from tests.unit.helm.chart import NAMESPACE, RELEASE, ROOT, Helm, Manifest, of_kind

README = (ROOT / "README.md").read_text()


def test_the_images_that_the_readme_pushes_are_those_that_its_installation_runs(helm: Helm) -> None:
    registry, version = re.findall(r"^\$ R=(\S+) V=(\S+)$", README, re.MULTILINE)[0]
    pushed = {name.replace("$R", registry).replace("$V", version) for name in re.findall(r"docker push (\S+)", README)}
    built = {name.replace("$R", registry).replace("$V", version) for name in re.findall(r"docker build -t (\S+)", README)}
    (flags,) = re.findall(
        rf"^\$ helm install {RELEASE} helm/finetune-operator -n {NAMESPACE} --create-namespace (.*)$", README, re.MULTILINE
    )
    manifests = helm.template(None, *flags.replace("$R", registry).split())
    pods = [manifest["spec"]["template"]["spec"] for manifest in of_kind(manifests, "Deployment", "Job")]
    run = {container["image"] for pod in pods for container in [*pod["containers"], *pod.get("initContainers", [])]}
    run |= {part for pod in pods for container in pod["containers"] for part in images_named(container, registry)}
    assert pushed == built
    assert run == pushed


def images_named(container: dict[str, object], registry: str) -> set[str]:
    """Images that a container is told of by its environment: the operator starts the trainer's."""
    variables = container.get("env", [])
    assert isinstance(variables, list)
    return {variable["value"] for variable in variables if str(variable.get("value", "")).startswith(f"{registry}/")}


def test_the_containerfiles_and_contexts_of_the_readme_are_there() -> None:
    builds = re.findall(r"docker build -t \S+ -f (\S+) (\S+)", README)
    assert len(builds) == 3
    for containerfile, context in builds:
        assert (ROOT / containerfile).is_file()
        assert (ROOT / context).is_dir()


def test_the_demo_knows_the_charts_operator_by_its_labels(default_manifests: list[Manifest]) -> None:
    """Whatever release and namespace a team has installed it with."""
    wanted = dict(pair.split("=") for pair in OPERATORS.split(","))
    found = [m["metadata"]["name"] for m in of_kind(default_manifests, "Deployment") if wanted.items() <= m["metadata"]["labels"].items()]
    assert found == ["finetune-operator"]
