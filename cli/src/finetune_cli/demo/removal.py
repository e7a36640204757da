"""Taking the demo out of a cluster that stays."""

from __future__ import annotations

from finetune_api.constants import ANNOTATION_ALLOW_DELETE
from finetune_cli.demo.on_cluster import BUILD_SECONDS, COMMAND_SECONDS, INSTALL_SECONDS, tool
from finetune_cli.demo.scene import JOB_NAMESPACE, RELEASE, SYSTEM_NAMESPACE, Scene
from finetune_cli.demo.shell import CommandFailedError, Shell


def remove_from_context(shell: Shell, scene: Scene) -> None:
    """Delete the demo's job and data, the release and its namespace. The CRDs stay: other people's jobs hang on them."""
    shell.export("KUBECONFIG", shell.capture(tool("finetune-cluster"), "up", timeout_seconds=BUILD_SECONDS).strip().splitlines()[-1])
    helm = shell.capture(tool("finetune-cluster"), "tools", "helm", timeout_seconds=BUILD_SECONDS).strip()
    at = ("--namespace", JOB_NAMESPACE)
    name, _ = scene.config_map
    job = scene.document.name
    if _exists(shell, job):
        shell.run(
            "kubectl",
            "annotate",
            "finetunejob",
            job,
            f"{ANNOTATION_ALLOW_DELETE}=true",
            "--overwrite",
            *at,
            timeout_seconds=COMMAND_SECONDS,
        )
        shell.run("kubectl", "delete", "finetunejob", job, "--wait", *at, timeout_seconds=INSTALL_SECONDS)
    shell.run("kubectl", "delete", "configmap", name, "--ignore-not-found", *at, timeout_seconds=COMMAND_SECONDS)
    shell.run(helm, "uninstall", RELEASE, "--ignore-not-found", "--wait", "--namespace", SYSTEM_NAMESPACE, timeout_seconds=INSTALL_SECONDS)
    shell.run("kubectl", "delete", "namespace", SYSTEM_NAMESPACE, "--ignore-not-found", "--wait", timeout_seconds=INSTALL_SECONDS)


def _exists(shell: Shell, job: str) -> bool:
    """Whether the job is there; without the CRD there is none."""
    words = ("kubectl", "get", "finetunejob", job, "--ignore-not-found", "-o", "name", "--namespace", JOB_NAMESPACE)
    try:
        return bool(shell.capture(*words, timeout_seconds=COMMAND_SECONDS, quietly=True))
    except CommandFailedError:
        return False
