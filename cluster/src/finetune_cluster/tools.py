"""Programs that tests and the demo use beside the cluster; each is installed only when asked for."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from finetune_cluster.errors import ClusterError
from finetune_cluster.go import provide_go
from finetune_cluster.gobuild import (
    ARGOCD,
    GITOPS,
    HELM,
    HELM3,
    KUSTOMIZE_CONTROLLER,
    MINIO,
    SOURCE_CONTROLLER,
    GoProgram,
    build,
    link_names,
)
from finetune_cluster.home import Home
from finetune_cluster.progress import step
from finetune_cluster.shell import CommandError, run


@dataclass(frozen=True, slots=True)
class GoTool:
    """A program that `go install` makes."""

    name: str
    """What it is called by."""
    package: str
    version: str

    @property
    def built_name(self) -> str:
        """What `go install` calls it."""
        return self.package.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class DebianTool:
    """Programs of a Debian package, taken out of it: the package is not installed, and no service is set up."""

    package: str
    programs: tuple[str, ...]


KIND = GoTool("kind", "sigs.k8s.io/kind", "v0.33.0")
Tool = GoProgram | GoTool | DebianTool
TOOLS: dict[str, Tool] = {
    "argocd": ARGOCD,
    "gitops": GITOPS,
    "helm": HELM,
    "helm3": HELM3,
    "kind": KIND,
    "kustomize-controller": KUSTOMIZE_CONTROLLER,
    "kwok": GoTool("kwok", "sigs.k8s.io/kwok/cmd/kwok", "v0.8.0"),
    "minio": MINIO,
    "prometheus": DebianTool("prometheus", ("prometheus", "promtool")),
    "source-controller": SOURCE_CONTROLLER,
}


def install_tool(tool: Tool, home: Home) -> Path:
    """Install a tool unless it is there, and return the program to call."""
    match tool:
        case GoProgram():
            names = tool.names or (tool.name,)
            link_names(build(tool, home), [*names], home.bin)
            return home.bin / names[0]
        case GoTool():
            program = _install_from_go(tool, home)
            link_names(program, [tool.name], home.bin)
            return home.bin / tool.name
        case DebianTool():
            if shutil.which("apt-get") is None and all(shutil.which(name) for name in tool.programs):
                return Path(str(shutil.which(tool.programs[0])))
            folder = _extract_package(tool, home)
            for name in tool.programs:
                link_names(folder / "usr" / "bin" / name, [name], home.bin)
            return home.bin / tool.programs[0]


def _install_from_go(tool: GoTool, home: Home) -> Path:
    folder = home.builds / f"tool-{tool.name}-{tool.version}"
    if not (folder / tool.built_name).exists():
        go = provide_go(home)
        home.builds.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "CGO_ENABLED": "0", "GOBIN": str(folder)}
        with step(f"build {tool.name} {tool.version} (a few minutes the first time)"):
            run(["nice", "-n", "10", go, "install", "-trimpath", "-ldflags", "-s -w", f"{tool.package}@{tool.version}"], env=environment)
    return folder / tool.built_name


def _extract_package(tool: DebianTool, home: Home) -> Path:
    folder = home.builds / f"package-{tool.package}"
    if not folder.exists():
        if shutil.which("apt-get") is None:
            raise ClusterError(
                f"this machine has no apt-get, from which {tool.package} is taken: install {', '.join(tool.programs)} by hand, "
                "so that they are on PATH"
            )
        home.builds.mkdir(parents=True, exist_ok=True)
        with step(f"fetch the package {tool.package}"), tempfile.TemporaryDirectory(dir=home.builds) as scratch:
            archive = _download(tool.package, Path(scratch))
            run(["dpkg-deb", "--extract", archive, Path(scratch) / "content"])
            shutil.move(Path(scratch) / "content", folder)
    return folder


def _download(package: str, folder: Path) -> Path:
    # apt drops its rights to a user of its own, who must be able to write here.
    folder.chmod(0o777)
    try:
        run(["apt-get", "download", package], cwd=folder)
    except CommandError:
        run(["apt-get", "update", "--quiet"])
        run(["apt-get", "download", package], cwd=folder)
    return next(folder.glob("*.deb"))
