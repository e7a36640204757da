"""Builds the Go programs of cluster/go, each once for given inputs."""

import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from finetune_cluster.errors import ClusterError
from finetune_cluster.go import provide_go
from finetune_cluster.hashing import digest_of, files_below
from finetune_cluster.home import Home
from finetune_cluster.progress import step
from finetune_cluster.repository import repository_root
from finetune_cluster.shell import run

_KUBERNETES = re.compile(r"^\s*k8s\.io/kubernetes v((\d+)\.(\d+)\.\d+)$", re.MULTILINE)
_NICENESS = ["nice", "-n", "10"]
COMPILE_FLAGS = ["-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false"]
"""What the linker would strip anyway (-s -w) is not made: an eighth of the time."""


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A module below cluster/go that makes one program."""

    name: str
    time_note: str
    """How long a first build takes on two cores, for the person who waits."""
    package: str = "."
    """What is built: the module's own program, or one of another module that it requires."""
    names: tuple[str, ...] = ()
    """What it is called by, where that is not its own name: the name chooses what it does."""
    module: str = ""
    """The folder of cluster/go, where it has not the program's name. Code that the programs of a module have in common is compiled once."""

    @property
    def source(self) -> Path:
        """The module's folder."""
        return repository_root() / "cluster" / "go" / (self.module or self.name)


NODE = GoProgram("node", "about 6 min")
KUBERNETES = {"1.32": GoProgram("kubernetes-1.32", "about 5 min")}
"""Kubernetes' own programs in versions other than the node's: the oldest that the chart supports."""
KUBECTL = GoProgram("kubectl", "about 2 min", "k8s.io/kubernetes/cmd/kubectl", module="node")
REGISTRY = GoProgram("registry", "about 30 s")
PAUSE = GoProgram("pause", "a few seconds")
MINIO = GoProgram("minio", "about 3 min")
HELM = GoProgram("helm", "about 1 min", "helm.sh/helm/v4/cmd/helm", module="node")
HELM3 = GoProgram("helm3", "about 1 min", "helm.sh/helm/v3/cmd/helm", module="node")
GITOPS = GoProgram("gitops", "about 1 min")
SOURCE_CONTROLLER = GoProgram("source-controller", "some minutes", "github.com/fluxcd/source-controller")
KUSTOMIZE_CONTROLLER = GoProgram("kustomize-controller", "some minutes", "github.com/fluxcd/kustomize-controller")
ARGOCD = GoProgram(
    "argocd",
    "some minutes",
    names=("argocd-application-controller", "argocd-git-ask-pass", "argocd-lua", "argocd-redis", "argocd-repo-server"),
)


def build(program: GoProgram, home: Home) -> Path:
    """Build a program unless that was done for the same inputs, and return the file."""
    flags = _link_flags(program.source)
    go = provide_go(home)
    version = run([go, "env", "GOVERSION"]).strip()
    key = digest_of([version, flags], files_below(program.source, ["."]))
    target = home.builds / f"{program.name}-{key}" / program.name
    with home.locked(f"build-{program.name}"):
        if not target.exists():
            with step(f"build {program.name} ({program.time_note} the first time)"):
                _compile(go, program, target, flags)
            for old in home.builds.glob(f"{program.name}-*"):
                if old != target.parent:
                    shutil.rmtree(old)
    return target


def module_folder(program: GoProgram, module: str, home: Home) -> Path:
    """Where the sources of a module are that a program requires, in the version it requires; its manifests are among them."""
    done = run([provide_go(home), "mod", "download", "-json", module], cwd=program.source)
    return Path(json.loads(done)["Dir"])


def link_names(program: Path, names: list[str], folder: Path) -> None:
    """Make a program callable under several names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        link = folder / name
        if link.is_symlink() and link.readlink() == program:
            continue
        link.unlink(missing_ok=True)
        link.symlink_to(program)


def kubernetes_version(go_mod: str) -> str:
    """Read the version of Kubernetes from a program's go.mod, which is the only place where it is written."""
    found = _KUBERNETES.search(go_mod)
    if found is None:
        raise ClusterError("go.mod requires no k8s.io/kubernetes")
    return f"v{found[1]}"


def _link_flags(source: Path) -> str:
    flags = "-s -w"
    go_mod = (source / "go.mod").read_text()
    if _KUBERNETES.search(go_mod):
        version = kubernetes_version(go_mod)
        major, minor, _ = version.removeprefix("v").split(".")
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
            flags += f" -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    return flags


def _compile(go: str, program: GoProgram, target: Path, flags: str) -> None:
    """Compile into a folder of its own first: a half-written file must never look like a finished build."""
    target.parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent.parent, prefix=".building-") as folder:
        output = Path(folder) / target.parent.name / target.name
        environment = {**os.environ, "CGO_ENABLED": "0"}
        run(
            [*_NICENESS, go, "build", *COMPILE_FLAGS, "-ldflags", flags, "-o", output, program.package],
            cwd=program.source,
            env=environment,
        )
        output.parent.rename(target.parent)
