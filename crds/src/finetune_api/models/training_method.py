"""TrainingMethod: an administrator's own image and command, and the parameters that jobs may give it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from finetune_api.models.base import ApiModel, Name, Quantity, ResumeClass, Tier, api_field
from finetune_api.models.scheduling import EnvironmentVariable

PARAMETER_PATTERN = r"^[A-Z][A-Z0-9_]*$"
ParameterName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=PARAMETER_PATTERN)]
"""A parameter has one name: in the job, in the environment and in the JSON file."""
ParameterText = Annotated[str, StringConstraints(max_length=1024)]
Argument = Annotated[str, StringConstraints(max_length=8192)]

IDENTITY = ResumeClass.IDENTITY


class MethodRef(ApiModel):
    """A TrainingMethod of the cluster, in place of a built-in method."""

    name: Name = api_field(resume=IDENTITY, tier=Tier.GENERAL, requirement="B-01 A-02")
    """Name of the TrainingMethod (kubectl get trainingmethods)."""
    parameters: dict[Annotated[str, StringConstraints(min_length=1, max_length=64)], ParameterText] | None = api_field(
        default=None, resume=IDENTITY, max_length=64, requirement="B-02 F-32"
    )
    """Values for the parameters the method declares, as texts (TEMPERATURE: "0.7"). The program finds them in its environment and, as
    numbers and flags, in /etc/finetune/job.json."""
    output_claim: Name | None = api_field(default=None, resume=IDENTITY, requirement="B-02 J-04")
    """PersistentVolumeClaim that OUTPUT_DIR lies on, so that what the program writes there outlives its pods. Unset: a directory of the
    pod; the program then keeps its checkpoints in the store (FINETUNE_OUTPUT_URI)."""


class Parameter(ApiModel):
    """A parameter of the method. Jobs write its value as a text; what does not fit is refused before anything runs."""

    name: ParameterName = api_field(requirement="B-02")
    """Its name in the job, and the variable the program reads: upper case, digits and _."""
    type: Literal["string", "integer", "number", "boolean"] = api_field(requirement="B-02")
    """What the text must be: anything, a whole number, a number, or true or false."""
    description: Annotated[str, StringConstraints(max_length=512)] | None = api_field(default=None)
    """What it does; shown where a value is refused."""
    required: bool = api_field(default=False, schema_default=False)
    """Jobs must give it."""
    default: ParameterText | None = api_field(default=None)
    """Value for jobs that do not give it. Unset: they run without the variable."""
    minimum: float | None = api_field(default=None)
    """Smallest value of a number."""
    maximum: float | None = api_field(default=None)
    """Largest value of a number."""
    choices: list[ParameterText] | None = api_field(default=None, min_length=1, max_length=32)
    """The only values of a string."""


class MethodResources(ApiModel):
    """What a replica gets where neither job nor preset says so."""

    device: Literal["gpu", "cpu"] | None = api_field(default=None, requirement="L-01 L-16")
    """gpu asks for nvidia.com/gpu; cpu does not."""
    gpus_per_replica: int | None = api_field(default=None, ge=1, le=16, requirement="L-03")
    """GPUs of each pod."""
    processes_per_replica: int | None = api_field(default=None, ge=1, le=16, requirement="M-01")
    """Processes of each pod, as torchrun counts them (NPROC_PER_NODE)."""
    cpu: Quantity | None = api_field(default=None, requirement="L-16")
    """CPU request of each pod."""
    memory: Quantity | None = api_field(default=None, requirement="Z-04")
    """Memory request and limit of each pod."""
    shared_memory: Quantity | None = api_field(default=None, requirement="E-26")
    """Size limit of /dev/shm."""


class TrainingMethodSpec(ApiModel):
    """A training of the administrators' own: jobs choose it by methodRef and change nothing but its parameters."""

    display_name: Annotated[str, StringConstraints(max_length=128)] | None = api_field(default=None)
    """A free name for people."""
    description: Annotated[str, StringConstraints(max_length=2048)] | None = api_field(default=None)
    """What it trains, and what its rows must say."""
    image: Annotated[str, StringConstraints(min_length=1, max_length=512)] = api_field(requirement="B-02 L-11")
    """Image of the pods."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = api_field(default=None)
    """Unset: the operator's."""
    command: list[Argument] | None = api_field(default=None, max_length=64, requirement="B-02")
    """The program. Unset: the image's entry point. $(NAME) stands for a variable, as in any pod."""
    args: list[Argument] | None = api_field(default=None, max_length=64, requirement="B-02")
    """Its arguments. Unset: the image's, if command is unset too."""
    env: list[EnvironmentVariable] | None = api_field(default=None, max_length=32)
    """More variables, the same for every job."""
    parameters: list[Parameter] | None = api_field(default=None, max_length=48, requirement="B-01 B-02")
    """What jobs may say in methodRef.parameters; other names are refused."""
    resources: MethodResources | None = api_field(default=None)
    """Defaults of the job's resources."""
    resumable: bool = api_field(default=False, schema_default=False, requirement="R-07")
    """The program saves when it gets SIGTERM and goes on from its own checkpoint when it starts again. false: a pause, a failure or a lost
    node makes it begin anew, and jobs say so beforehand."""
    run_as_user: int | None = api_field(default=None, ge=1, le=4294967294)
    """User the program runs as. Unset: 65532. Root is not possible."""
    writable_root: bool = api_field(default=False, schema_default=False)
    """The program may write outside of OUTPUT_DIR, HOME and /tmp."""
