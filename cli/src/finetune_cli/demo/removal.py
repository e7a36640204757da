"""Taking the demo out of a cluster that stays."""

from __future__ import annotations

from rich.console import Console

from finetune_api.constants import ANNOTATION_ALLOW_DELETE
from finetune_cli.demo.on_cluster import BUILD_SECONDS, COMMAND_SECONDS, INSTALL_SECONDS, tool
from finetune_cli.demo.ownership import SYSTEM, Owner, Owners, Thing, job_of, rows_of
from finetune_cli.demo.scene import RELEASE, SYSTEM_NAMESPACE, Scene
from finetune_cli.demo.shell import Shell


def remove_from_context(shell: Shell, scene: Scene, context: str, console: Console) -> None:
    """Delete what a demo made: job, data, release and namespace. What no demo made stays, as do the CRDs: others' jobs hang on them."""
    kubectl = ("kubectl", "--context", context)
    owners = Owners(shell, kubectl)

    def ours(thing: Thing) -> bool:
        owner = owners.owner(thing)
        if owner is Owner.OTHERS:
            console.print(f"{thing} stays: no demo made it", style="yellow", soft_wrap=True)
        return owner is Owner.DEMO

    job, rows = job_of(scene), rows_of(scene)
    if ours(job):
        shell.run(*kubectl, "annotate", *job.words, f"{ANNOTATION_ALLOW_DELETE}=true", "--overwrite", timeout_seconds=COMMAND_SECONDS)
        shell.run(*kubectl, "delete", *job.words, "--wait", timeout_seconds=INSTALL_SECONDS)
    if ours(rows):
        shell.run(*kubectl, "delete", *rows.words, timeout_seconds=COMMAND_SECONDS)
    if ours(SYSTEM):
        helm = shell.capture(tool("finetune-cluster"), "tools", "helm", timeout_seconds=BUILD_SECONDS).strip()
        at = ("--kube-context", context, "--namespace", SYSTEM_NAMESPACE)
        shell.run(helm, "uninstall", RELEASE, "--ignore-not-found", "--wait", *at, timeout_seconds=INSTALL_SECONDS)
        shell.run(*kubectl, "delete", *SYSTEM.words, "--wait", timeout_seconds=INSTALL_SECONDS)
