"""Names in the API group: labels, annotations, finalizer, field managers, object names."""

GROUP = "finetune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
PLURAL = "finetunejobs"
KIND = "FineTuneJob"
PRESET_KIND, PRESET_PLURAL = "FineTunePreset", "finetunepresets"
CLUSTER_PRESET_KIND, CLUSTER_PRESET_PLURAL = "ClusterFineTunePreset", "clusterfinetunepresets"
METHOD_KIND, METHOD_PLURAL = "TrainingMethod", "trainingmethods"
BASE_MODEL_KIND, BASE_MODEL_PLURAL = "BaseModel", "basemodels"
GPU_TYPE_KIND, GPU_TYPE_PLURAL = "GpuType", "gputypes"
DATASET_KIND, DATASET_PLURAL = "Dataset", "datasets"
BUDGET_KIND, BUDGET_PLURAL = "Budget", "budgets"
BUDGET_NAME = "default"
"""Name of the one Budget of a namespace."""

LABEL_JOB = f"{GROUP}/job"
"""On every child: the FineTuneJob's name; empty on the children of a Dataset, which network policies and watches so find as well."""
LABEL_DATASET = f"{GROUP}/dataset"
"""On every child of a Dataset: its name."""
LABEL_RUN = f"{GROUP}/run"
"""On every child of a run: its number."""
LABEL_COMPONENT = f"{GROUP}/component"
"""trainer, preflight, inspect, export, cleanup; look; of the command line pull, publish, serve."""
LABEL_REGION = "topology.kubernetes.io/region"
"""On nodes: where they are."""
GPU_RESOURCE = "nvidia.com/gpu"
"""What NVIDIA's device plugin calls its devices; pods ask for it unless their GpuType names another."""
EIGHT_BIT = ("adamw_8bit", "paged_adamw_8bit")
"""Optimizers of bitsandbytes."""
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "finetune-operator"

ANNOTATION_REQUEST = f"{GROUP}/request"
"""``<resume|retry|checkpoint|approve>/<token>``, of a Dataset ``validate/<token>``; each token acts once."""
ANNOTATION_ALLOW_DELETE = f"{GROUP}/allow-delete-running"
"""``true`` lets a running job be deleted."""
ANNOTATION_PROMOTED = f"{GROUP}/promoted"
"""Set (to the name of what was made of it) on a cancelled job whose artefacts are kept beyond output.retentionDays."""
ANNOTATION_OPERATOR_VERSION = f"{GROUP}/operator-version"
FINALIZER = f"{GROUP}/cleanup"

FIELD_MANAGER = "finetune-operator"
PROGRESS_FIELD_MANAGER = "finetune-progress"

LIMIT_REACHED = "LimitReached"
"""Reason of a pause the operator decided on, since ``spec.limits`` are used up."""

EARLY_STOPPED = "EarlyStopped"
"""Reason of the condition Succeeded of a job whose training ended before its last step, since it got no better (earlyStopping)."""

BALANCE_EXHAUSTED = "BalanceExhausted"
"""Reason of a pause the operator decided on, since the namespace's Budget has no money or no checkpoints left for the job."""

MAX_JOB_NAME = 50
"""Characters of a FineTuneJob's or Dataset's name, so that its children's names fit."""
DEFAULT_STORE_SECRET = "finetune-storage"
CA_CONFIGMAP = "finetune-ca"
TLS_SECRET = "finetune-operator-tls"


def run_name(job: str, run: int) -> str:
    """Name of the Job, Service and ConfigMap of a run."""
    return f"{job}-r{run}"


def verb_name(job: str, verb: str, serial: int) -> str:
    """Name of the short Job of a verb (preflight, inspect, export, cleanup)."""
    return f"{job}-{verb}-{serial}"
