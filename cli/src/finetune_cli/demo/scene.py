"""What the demo works with: this checkout's example job, and what the job refers to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from finetune_api.models.spec import FineTuneJobSpec
from finetune_cli.errors import CliError
from finetune_cli.manifest import Document, read_job, read_presets, resolve_document

MANIFEST = Path("examples/sft-lora.yaml")
MODEL_SCRIPT = Path("examples/tiny_model.py")
DATA = Path("examples/data/kubernetes-sft.jsonl")
CHART = Path("helm/finetune-operator")
OUTPUT = Path("out/demo")
"""Everything the demo writes into the checkout (ignored by git)."""
RELEASE = "finetune"
SYSTEM_NAMESPACE = "finetune-system"
JOB_NAMESPACE = "default"
PAUSE_AT = 1 / 3
"""Share of the steps after which the job is paused."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The example job. Addresses are taken from its manifest, so that what is shown is what is applied."""

    root: Path
    document: Document
    spec: FineTuneJobSpec
    """Resolved."""

    @classmethod
    def of(cls, root: Path) -> Scene:
        """Read the example of a checkout.

        Raises:
            CliError: this is no checkout, or the example does not suit the demo.
        """
        if not (root / MANIFEST).is_file():
            raise CliError(
                f"{root} is no checkout of this project: it has no {MANIFEST}",
                advice="Run the demo from the repository's root (make demo).",
            )
        document = read_job(root / MANIFEST)
        spec = resolve_document(document, read_presets([])).spec
        if urlsplit(spec.model.uri).scheme != "s3" or urlsplit(spec.dataset.uri).scheme != "configmap":
            found = f"it has {spec.model.uri} and {spec.dataset.uri}"
            raise CliError(f"{MANIFEST}: the demo uploads a model to s3:// and makes a ConfigMap of its data; {found}")
        return cls(root, document, spec)

    @property
    def model_directory(self) -> Path:
        """Where the tiny model is made; relative to the checkout."""
        return OUTPUT / Path(urlsplit(self.spec.model.uri).path).name

    @property
    def config_map(self) -> tuple[str, str]:
        """Name and key of the ConfigMap with the data."""
        parts = urlsplit(self.spec.dataset.uri)
        return parts.netloc, parts.path.strip("/")

    def pause_step(self, total_steps: int) -> int:
        """Step from which on the job may be paused."""
        return max(1, round(total_steps * PAUSE_AT))
