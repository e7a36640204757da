"""What a person reads after an installation."""

from __future__ import annotations

from tests.unit.helm.chart import CHART, EXTERNAL, MATRIX, ROOT, Helm


def test_says_what_to_do_next(helm: Helm) -> None:
    """Test, first job, the pause that lasts, deletion and removal."""
    notes = helm.notes()
    for part in (
        "helm test finetune -n finetune-system",
        "which exists in: default, finetune-system",
        "kubectl create secret generic finetune-storage -n NAMESPACE --from-env-file=/dev/stdin",
        "`suspend: true`",
        "finetune.dev/allow-delete-running=true",
        "--take-ownership",
        "kubectl delete crd finetunejobs.finetune.dev",
        "kubectl delete pvc finetune-minio -n finetune-system",
    ):
        assert part in notes


def test_the_command_that_copies_the_secret_is_printed_as_it_is_run(helm: Helm) -> None:
    """Its Go template is kubectl's, not Helm's."""
    assert """'{{range $key, $value := .data}}{{$key}}={{$value | base64decode}}{{"\\n"}}{{end}}'""" in helm.notes()


def test_external_store_names_the_missing_secret(helm: Helm) -> None:
    """Without keys the release makes no Secret: the notes say how to."""
    notes = helm.notes(EXTERNAL)
    assert "which this release did not make" in notes
    assert "--from-literal=AWS_ACCESS_KEY_ID=..." in notes
    assert "kubectl delete pvc" not in notes


def test_data_loss_is_announced(helm: Helm) -> None:
    """A store without a volume and CRDs that go with the release are said aloud."""
    assert "a restart of its pod loses every checkpoint" in helm.notes(MATRIX["store-without-volume"])
    assert "with them every FineTuneJob of the cluster" in helm.notes(MATRIX["crds-not-kept"])


def test_removal_names_every_crd(helm: Helm) -> None:
    """AC-03: a CRD that is left behind keeps its objects, in the notes and in the README."""
    kinds = {path.stem for path in (ROOT / "crds").glob("*.finetune.dev.yaml")}
    for text in (helm.notes(), (CHART / "README.md").read_text(encoding="utf-8")):
        (line,) = [line for line in text.splitlines() if "kubectl delete crd" in line]
        assert set(line.split()) & kinds == kinds
