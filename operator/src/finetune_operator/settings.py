"""Everything an administrator may set: read once from the environment (``FINETUNE_OPERATOR_...``), then passed on."""

from __future__ import annotations

import socket
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from finetune_api.constants import DEFAULT_STORE_SECRET, TLS_SECRET
from finetune_api.pricing import Billing


class PlanSettings(BaseModel):
    """What decisions depend on; the pure part of the settings."""

    model_config = ConfigDict(frozen=True)

    version: str
    """Version of this operator, noted on what it creates."""
    trainer_image: str
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    storage_endpoint: str | None = None
    """URL of the S3 endpoint, for example http://minio.finetune.svc:9000. None: the one in the store Secret, else AWS."""
    storage_region: str | None = None
    storage_bucket: str
    """Bucket of jobs without output.uri."""
    storage_secret: str = DEFAULT_STORE_SECRET
    progress_url: str
    """Base URL of the progress endpoint as trainer pods reach it, for example https://finetune-operator.finetune.svc:8443."""
    progress_interval_seconds: float = 5.0
    start_patience_seconds: float = 60.0
    """How long an image pull error or a container configuration error may last before the run is given up (its GPUs are held meanwhile)."""
    unreachable_toleration_seconds: int = 30
    lost_pod_seconds: float = 30.0
    """Time past a pod's deletion after which one whose containers never end counts as lost."""
    verb_deadline_seconds: int = 600
    """Longest time of a preflight or inspect pod."""
    finished_retention_seconds: float = 3600.0
    """How long the ended pods of a finished job are kept for kubectl logs."""
    max_backoff_seconds: float = 300.0
    trainer_http_proxy: str | None = None
    trainer_https_proxy: str | None = None
    trainer_no_proxy: str | None = None
    """Hosts trainer pods ask directly, besides those of the cluster."""
    trainer_ca_configmap: str | None = None
    """ConfigMap of CA certificates in the jobs' namespaces that trainer pods trust instead of the image's."""
    trainer_ca_key: str = "ca.crt"
    trainer_offline: bool = False
    """Trainer pods ask the hub for nothing; its repositories must be in the cache claim."""
    trusted_model_code: tuple[str, ...] = ()
    """Patterns of model and tokenizer addresses whose own code trainer pods may run (``*`` stands for any text)."""
    scrape_annotations: bool = True
    """Whether trainer pods carry the annotations prometheus.io/scrape, for a Prometheus without PodMonitors."""
    grafana_url: str | None = None
    """Base URL of Grafana; status.dashboardURL is made from it. None: no dashboard is shown."""
    billing: Billing = Billing()
    """Constants that costs are estimated with."""
    cluster_reads: bool = True
    """False: this installation may not read ClusterFineTunePresets, TrainingMethods, BaseModels and GpuTypes (namespaced mode without the
    read-only ClusterRole)."""


class Settings(BaseSettings):
    """Settings of the operator process."""

    model_config = SettingsConfigDict(env_prefix="FINETUNE_OPERATOR_", frozen=True, extra="ignore")

    namespace: str = "finetune"
    """Namespace the operator runs in: Lease, TLS Secret."""
    watch_namespaces: Annotated[tuple[str, ...], NoDecode] = ()
    """Comma-separated. Empty: all namespaces; else only these are listed and watched (Roles suffice)."""
    cluster_reads: bool = True
    """Whether the read-only ClusterRole exists (ClusterFineTunePresets, TrainingMethods, BaseModels, GpuTypes, TokenReviews). Without it
    tokens are verified offline by JWKS."""
    identity: str = Field(default_factory=socket.gethostname, min_length=1, max_length=128)
    """Holder name in the Lease: the pod's name."""

    trainer_image: str = Field(min_length=1)
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: Annotated[tuple[str, ...], NoDecode] = ()

    trainer_http_proxy: str | None = None
    """Proxy of trainer pods for http:// addresses outside the cluster."""
    trainer_https_proxy: str | None = None
    trainer_no_proxy: str | None = None
    trainer_ca_configmap: str | None = Field(default=None, max_length=253)
    trainer_ca_key: str = "ca.crt"
    trainer_offline: bool = False
    trusted_model_code: Annotated[tuple[str, ...], NoDecode] = ()
    """Comma-separated patterns of addresses whose own code trainer pods may run (model.trustRemoteCode). Empty: none."""

    storage_endpoint: str | None = None
    """host:port or URL of the S3 endpoint. Unset: what the store Secret says, else AWS."""
    storage_secure: bool = True
    """https for an endpoint given without a scheme."""
    storage_region: str | None = None
    storage_bucket: str = Field(min_length=3, max_length=63)
    storage_secret: str = DEFAULT_STORE_SECRET

    progress_url: str
    """URL trainer pods use; its host must be among the certificate's names."""
    progress_host: str = "0.0.0.0"  # noqa: S104 - pods post to it
    progress_port: int = Field(default=8443, ge=0, le=65535)
    progress_interval_seconds: float = Field(default=5.0, ge=0.5, le=60)
    progress_writes_per_second: float = Field(default=20.0, gt=0, le=1000)
    """Status writes for progress, all jobs together."""
    progress_min_write_seconds: float = Field(default=5.0, ge=0, le=300)
    """Shortest time between two periodic progress writes of one job."""
    tls_source: Literal["self", "external"] = "self"
    """self: the leader fills the Secret and renews it. external: cert-manager or the administrator does; it is only read."""
    tls_secret: str = TLS_SECRET
    tls_names: Annotated[tuple[str, ...], NoDecode] = ()
    """More DNS names or IP addresses for the certificate."""
    token_issuer: str | None = None
    """Expected issuer of tokens when they are verified offline. Unset: the API server's own."""

    billing: Billing = Billing()
    """Constants that costs are estimated with, as JSON."""

    http_host: str = "0.0.0.0"  # noqa: S104 - the kubelet and Prometheus ask it
    http_port: int = Field(default=8080, ge=0, le=65535)
    """/metrics, /healthz and /readyz."""

    lease_name: str = "finetune-operator"
    lease_seconds: float = Field(default=15.0, ge=3)
    renew_deadline_seconds: float = Field(default=10.0, ge=2)
    retry_seconds: float = Field(default=2.0, gt=0)

    workers: int = Field(default=8, ge=1, le=64)
    resync_seconds: float = Field(default=600.0, ge=10)
    """Every job that is not finished is looked at at least this often."""
    watch_silence_seconds: float = Field(default=70.0, ge=5)
    """A watch that says nothing for this long is begun again where it stood: its connection may be lost without a word. The API server says
    where it stands once a minute, and remembers a little more than that."""
    shutdown_seconds: float = Field(default=10.0, gt=0)
    scrape_annotations: bool = True
    grafana_url: str | None = None
    """Base URL of the Grafana that has the chart's dashboards."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    webhook_url: str | None = None
    """Told of chosen events (AB-05). Unset: nobody is."""
    webhook_token: str | None = Field(default=None, repr=False)
    webhook_reasons: Annotated[tuple[str, ...], NoDecode] = (
        "Succeeded", "Failed", "Paused", "Stopped", "Cancelled", "LimitReached", "BalanceExhausted", "ApprovalNeeded",
    )  # fmt: skip
    """Comma-separated reasons of events."""
    webhook_patience_seconds: float = Field(default=300.0, gt=0)

    start_patience_seconds: float = Field(default=60.0, ge=0)
    verb_deadline_seconds: int = Field(default=600, ge=30)
    finished_retention_seconds: float = Field(default=3600.0, ge=0)

    @field_validator("watch_namespaces", "image_pull_secrets", "tls_names", "trusted_model_code", "webhook_reasons", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Read a comma-separated list."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("grafana_url", "webhook_url")
    @classmethod
    def _web_address(cls, value: str | None, info: ValidationInfo) -> str | None:
        """People click on what is made from the one; the other may hold a secret, so it is not repeated."""
        if not value:
            return None
        if not value.startswith(("https://", "http://")):
            raise ValueError(f"FINETUNE_OPERATOR_{(info.field_name or '').upper()} must start with https:// or http://")
        return value.rstrip("/")

    @field_validator("progress_url")
    @classmethod
    def _https(cls, value: str) -> str:
        """Tokens travel to this URL, so it must be https."""
        if not value.startswith("https://"):
            raise ValueError(f"FINETUNE_OPERATOR_PROGRESS_URL is {value!r}; it must start with https://")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _lease_times(self) -> Settings:
        """A leader must have given up before another may take over."""
        if not self.retry_seconds < self.renew_deadline_seconds < self.lease_seconds:
            raise ValueError(
                f"FINETUNE_OPERATOR_RETRY_SECONDS ({self.retry_seconds:g}) < RENEW_DEADLINE_SECONDS ({self.renew_deadline_seconds:g})"
                f" < LEASE_SECONDS ({self.lease_seconds:g}) must hold"
            )
        return self

    @property
    def endpoint_url(self) -> str | None:
        """The storage endpoint as a URL."""
        if not self.storage_endpoint or "://" in self.storage_endpoint:
            return self.storage_endpoint or None
        return f"{'https' if self.storage_secure else 'http'}://{self.storage_endpoint}"

    def for_plan(self, version: str) -> PlanSettings:
        """The part that decisions see."""
        shared = {name: getattr(self, name) for name in PlanSettings.model_fields if name in type(self).model_fields}
        return PlanSettings(**{**shared, "storage_endpoint": self.endpoint_url, "version": version})
