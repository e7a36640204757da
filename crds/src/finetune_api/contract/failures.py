"""Exit codes and the closed set of failure classes: one table class -> code -> retry -> advice."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

EXIT_DONE = 0
"""All ranks done, after rank 0's final commit is known to all."""
EXIT_STOPPED = 75
"""Stopped as asked, with a complete checkpoint (or before the first step)."""
EXIT_PEER_LOST = 76
"""A peer or its node went away."""
EXIT_STORE_UNREACHABLE = 77
"""The store was not reachable before the deadline."""
EXIT_USER_ERROR = 42
"""Nothing a retry could mend: configuration, data, model, credentials, CUDA OOM, NaN loss."""
EXIT_UNKNOWN = 1


class FailureClass(StrEnum):
    """Why a job failed."""

    CONFIGURATION = "ConfigurationError"
    CUDA_OUT_OF_MEMORY = "CudaOutOfMemory"
    OOM_KILLED = "OOMKilled"
    LOSS_DIVERGED = "LossDiverged"
    DATA = "DataError"
    MODEL = "ModelError"
    HUGGING_FACE_AUTH = "HuggingFaceAuth"
    HUB_UNAVAILABLE = "HubUnavailable"
    STORAGE_AUTH = "StorageAuth"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    IMAGE_PULL = "ImagePull"
    UNSCHEDULABLE = "Unschedulable"
    NODE_LOST = "NodeLost"
    PREEMPTED = "Preempted"
    PEER_LOST = "PeerLost"
    STALLED = "Stalled"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    CHECKPOINT_INCOMPLETE = "CheckpointIncomplete"
    QUANTIZATION_UNAVAILABLE = "QuantizationUnavailable"
    UNKNOWN = "Unknown"


class Retry(StrEnum):
    """How the operator reacts to a class."""

    NEVER = "never"
    """A retry cannot help: the user has to change something."""
    COUNTED = "counted"
    """Retried with back-off, within retry.limit."""
    FREE = "free"
    """A disruption: retried, not counted."""


class Reaction(NamedTuple):
    """One row of the table."""

    exit_code: int
    retry: Retry
    advice: str


REACTIONS: dict[FailureClass, Reaction] = {
    FailureClass.CONFIGURATION: Reaction(EXIT_USER_ERROR, Retry.NEVER, "Correct the named field and apply the job again under a new name."),
    FailureClass.CUDA_OUT_OF_MEMORY: Reaction(
        EXIT_USER_ERROR,
        Retry.NEVER,
        "Lower training.batchSize and raise training.gradAccumSteps by the same factor, lower training.maxSeqLength, "
        "turn on training.gradientCheckpointing, or set training.optimizer to adamw_8bit.",
    ),
    FailureClass.OOM_KILLED: Reaction(
        137,
        Retry.COUNTED,
        "The container ran out of main memory: raise resources.memory, or lower dataset.numWorkers and resources.processesPerReplica.",
    ),
    FailureClass.LOSS_DIVERGED: Reaction(
        EXIT_USER_ERROR,
        Retry.NEVER,
        "The loss became NaN or infinite, or rose far above its best: lower training.learningRate (usual are 0.0001 to 0.0005 for LoRA, "
        "0.00001 to 0.00005 for full, 0.0001 to 0.001 for pretrain), lengthen the warm-up, or look at the data around the named step. "
        "Checkpoints from before it are kept.",
    ),
    FailureClass.DATA: Reaction(EXIT_USER_ERROR, Retry.NEVER, "Mend the named row or column of the dataset, then create the job anew."),
    FailureClass.MODEL: Reaction(
        EXIT_USER_ERROR, Retry.NEVER, "model.uri must be a directory in Hugging Face format with config.json and safetensors weights."
    ),
    FailureClass.HUGGING_FACE_AUTH: Reaction(
        EXIT_USER_ERROR,
        Retry.NEVER,
        "Accept the model's licence on the hub and set secrets.huggingface.secretRef to a Secret whose key HF_TOKEN may read it.",
    ),
    FailureClass.HUB_UNAVAILABLE: Reaction(
        EXIT_STORE_UNREACHABLE, Retry.COUNTED, "The hub did not answer: check HF_ENDPOINT in the Secret and the network policy."
    ),
    FailureClass.STORAGE_AUTH: Reaction(
        EXIT_USER_ERROR,
        Retry.NEVER,
        "Check the Secret named in the message: its keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be allowed to read, "
        "write, list and delete in the bucket. If the message names a clock, set the time of the node or of the store instead.",
    ),
    FailureClass.STORAGE_UNAVAILABLE: Reaction(
        EXIT_STORE_UNREACHABLE, Retry.COUNTED, "The store did not answer: check its endpoint, network policy and free space."
    ),
    FailureClass.IMAGE_PULL: Reaction(EXIT_USER_ERROR, Retry.NEVER, "The image cannot be pulled: check its name, tag and pull secret."),
    FailureClass.UNSCHEDULABLE: Reaction(EXIT_UNKNOWN, Retry.FREE, "No node fits: see the message for what is missing."),
    FailureClass.NODE_LOST: Reaction(
        EXIT_PEER_LOST, Retry.FREE, "A node stopped answering; the job goes on elsewhere from its last complete checkpoint."
    ),
    FailureClass.PREEMPTED: Reaction(EXIT_STOPPED, Retry.FREE, "The pods were evicted or preempted; the job goes on when there is room."),
    FailureClass.PEER_LOST: Reaction(
        EXIT_PEER_LOST, Retry.COUNTED, "A rank lost its peers; the group restarts from the last complete checkpoint."
    ),
    FailureClass.STALLED: Reaction(
        EXIT_UNKNOWN, Retry.COUNTED, "No progress was made for too long; the stacks of all ranks are in the log."
    ),
    FailureClass.DEADLINE_EXCEEDED: Reaction(
        EXIT_UNKNOWN,
        Retry.COUNTED,
        "A time limit set on the pods from outside (a queue, a policy) ended them: raise it. spec.limits would pause the job instead.",
    ),
    FailureClass.CHECKPOINT_INCOMPLETE: Reaction(
        EXIT_USER_ERROR, Retry.NEVER, "The checkpoint to resume from lacks the named file: choose another one in checkpoint.resumeFrom."
    ),
    FailureClass.QUANTIZATION_UNAVAILABLE: Reaction(
        EXIT_USER_ERROR,
        Retry.NEVER,
        "Quantization and 8-bit optimizers need the bitsandbytes library in the image, in a version that knows the device: set "
        "quantization.mode to none, or training.optimizer to one without 8bit in its name, or choose another image or device.",
    ),
    FailureClass.UNKNOWN: Reaction(EXIT_UNKNOWN, Retry.COUNTED, "See the last log lines; kubectl logs of the failed pod has them all."),
}

CODE_PRECEDENCE = (EXIT_USER_ERROR, EXIT_UNKNOWN, EXIT_STORE_UNREACHABLE, EXIT_PEER_LOST, EXIT_STOPPED, EXIT_DONE)
"""A pod's exit code is the cause's, not the first one seen."""
