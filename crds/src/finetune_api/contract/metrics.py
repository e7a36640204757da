"""Every metric of operator and trainer: name, kind, meaning, labels. The one table; collectors, dashboards, alerts, docs and tests read it.

Names and units follow Prometheus' rules (base units, ``_total`` for counters, ``_timestamp_seconds``, ratios 0-1). The labels of a job are
``finetune_namespace`` and ``finetune_job``: ``namespace``, ``job``, ``pod`` and ``instance`` belong to the scraped target.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

LABELS = ("finetune_namespace", "finetune_job")
"""Every series of a job carries them; run and attempt are values, not labels, so that a week-long job stays one series."""


class Kind(StrEnum):
    """Type of a metric."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Metric(str):
    """The name of a metric, which knows the rest of its row."""

    __slots__ = ("help", "kind", "labels")
    kind: Kind
    help: str
    labels: tuple[str, ...]

    def __new__(cls, name: str, kind: Kind, text: str, *labels: str) -> Self:
        """``text``: one sentence without a full stop, as it stands on the metrics page."""
        metric = super().__new__(cls, name)
        metric.kind, metric.help, metric.labels = kind, text, labels
        return metric


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, text, *LABELS, *labels)


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, text, *LABELS, *labels)


def _histogram(name: str, text: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, text, *LABELS)


# --- served by each trainer pod while it runs ---

LOSS = _gauge("finetune_train_loss", "Training loss, last reading")
REWARD_MEAN = _gauge("finetune_reward_mean", "Mean reward of the last logged step")
REWARD_STD = _gauge("finetune_reward_std", "Spread of the rewards of the last logged step")
KL = _gauge("finetune_kl", "Distance to the reference model, last logged step")
PREFERENCE_ACCURACY = _gauge("finetune_preference_accuracy_ratio", "Share of pairs whose better answer scores higher, last logged step")
EVAL_LOSS = _gauge("finetune_eval_loss", "Evaluation loss, last evaluation")
LEARNING_RATE = _gauge("finetune_train_learning_rate", "Learning rate of the last step")
GRAD_NORM = _gauge("finetune_train_grad_norm", "Gradient norm before clipping, last reading")
TOKENS_PER_SECOND = _gauge("finetune_train_tokens_per_second", "Tokens trained per second, all ranks")
TOKENS_TOTAL = _counter("finetune_train_tokens_total", "Tokens trained, all attempts")
STEP = _gauge("finetune_train_step", "Optimizer steps done")
TOTAL_STEPS = _gauge("finetune_train_steps_planned", "Optimizer steps planned")
EPOCH = _gauge("finetune_train_epoch", "Passes over the data done")
STEP_DURATION = _gauge("finetune_train_step_duration_seconds", "Duration of the last optimizer step")
STEP_SECONDS = _histogram("finetune_train_step_seconds", "Duration of optimizer steps, in this pod's life")
GPU_MEMORY = _gauge("finetune_train_gpu_memory_peak_bytes", "Most GPU memory that rank 0 had allocated at once; on GPUs only")
MFU = _gauge("finetune_train_model_flops_utilization_ratio", "Share of the GPUs' peak arithmetic that training uses; known GPU types only")
MISSING_PARTS = _gauge("finetune_train_optimized_backend_missing_parts", "Parts of backend optimized that the run goes without")
CHECKPOINT_SAVE_DURATION = _gauge("finetune_checkpoint_save_duration_seconds", "Duration of the last save to local disk")
CHECKPOINT_UPLOAD_DURATION = _gauge("finetune_checkpoint_upload_duration_seconds", "Duration of the last upload of a checkpoint")
CHECKPOINT_SAVE_SECONDS = _histogram("finetune_checkpoint_save_seconds", "Duration of saves to local disk, in this pod's life")
CHECKPOINT_UPLOAD_SECONDS = _histogram("finetune_checkpoint_upload_seconds", "Duration of uploads of checkpoints, in this pod's life")
CHECKPOINT_STALL = _counter("finetune_checkpoint_stall_seconds_total", "Time training waited for saves")
CHECKPOINT_BYTES = _gauge("finetune_checkpoint_bytes", "Size of the last complete checkpoint")
CHECKPOINT_LAST_STEP = _gauge("finetune_checkpoint_last_step", "Step of the last complete checkpoint")
CHECKPOINT_LAST_SUCCESS = _gauge("finetune_checkpoint_last_success_timestamp_seconds", "When the last checkpoint was complete")
CHECKPOINTS_SKIPPED = _counter("finetune_checkpoints_skipped_total", "Saves replaced by a newer one or without space")
UPLOAD_ERRORS = _counter("finetune_checkpoint_upload_errors_total", "Failed tries to upload a checkpoint")
ATTEMPT = _gauge("finetune_train_attempt", "Number of the attempt")
RUN = _gauge("finetune_train_run", "Number of the run")
STALLED = _gauge("finetune_train_stalled", "1 while a process of the pod makes no headway for longer than its phase may take, else 0")
LAST_HEADWAY = _gauge("finetune_train_last_headway_timestamp_seconds", "When a counter of the pod last moved")
PHASE = _gauge("finetune_train_phase_info", "1 for what the trainer does now", "phase")
USAGE_SECONDS = _counter("finetune_usage_seconds_total", "Wall time of the rank group by use", "use")
"""Label ``use``: starting, productive, checkpointing, replayed, evaluating."""

TRAINER = (
    LOSS, EVAL_LOSS, LEARNING_RATE, GRAD_NORM, TOKENS_PER_SECOND, TOKENS_TOTAL, STEP, TOTAL_STEPS, EPOCH, STEP_DURATION, STEP_SECONDS,
    GPU_MEMORY, MFU, MISSING_PARTS, CHECKPOINT_SAVE_DURATION, CHECKPOINT_UPLOAD_DURATION, CHECKPOINT_SAVE_SECONDS,
    CHECKPOINT_UPLOAD_SECONDS, CHECKPOINT_STALL, CHECKPOINT_BYTES, CHECKPOINT_LAST_STEP, CHECKPOINT_LAST_SUCCESS, CHECKPOINTS_SKIPPED,
    UPLOAD_ERRORS, ATTEMPT, RUN, STALLED, LAST_HEADWAY, PHASE, USAGE_SECONDS, REWARD_MEAN, REWARD_STD, KL, PREFERENCE_ACCURACY,
)  # fmt: skip

# --- served by the leading operator for each job, from its status: they outlive the job's pods and end with the job ---

CONFIG_LABELS = (
    "method", "model", "dataset", "adapter", "rank", "learning_rate", "epochs", "max_steps", "batch_size", "grad_accum_steps",
    "max_seq_length", "optimizer", "strategy", "seed", "replicas",
)  # fmt: skip
"""What two jobs are compared by; values as resolved, empty where unknown."""

JOB_INFO = _gauge("finetune_job_config_info", "1; what the job trains and how, with every default resolved", *CONFIG_LABELS)
JOB_PHASE = _gauge("finetune_job_phase", "1 for the phase the job is in", "phase", "reason")
JOB_WARNING = _gauge("finetune_job_warning", "1 for each warning condition that holds", "condition")
JOB_PROGRESS = _gauge("finetune_job_progress_ratio", "Share of the training done, 0-1")
JOB_STEP = _gauge("finetune_job_step", "Optimizer steps done")
JOB_TOTAL_STEPS = _gauge("finetune_job_steps_planned", "Optimizer steps planned")
JOB_LOSS = _gauge("finetune_job_loss", "Last training loss reported")
JOB_EVAL_LOSS = _gauge("finetune_job_eval_loss", "Last evaluation loss reported")
JOB_TOKENS_PER_SECOND = _gauge("finetune_job_tokens_per_second", "Last training speed reported, all ranks")
JOB_ETA = _gauge("finetune_job_eta_seconds", "Estimated time to the end of training, while it runs")
JOB_LAST_PROGRESS = _gauge("finetune_job_last_progress_timestamp_seconds", "When the trainer last said something new")
JOB_CHECKPOINT_STEP = _gauge("finetune_job_checkpoint_step", "Step of the newest complete checkpoint")
JOB_CHECKPOINT_TIME = _gauge("finetune_job_checkpoint_timestamp_seconds", "When the newest checkpoint was complete in the store")
JOB_ATTEMPTS = _gauge("finetune_job_attempts", "Starts of the job's rank group")
JOB_RUN = _gauge("finetune_job_run", "Number of the job's current or last run")
JOB_PODS = _gauge("finetune_job_pods", "Trainer pods that exist now")
JOB_GPUS = _gauge("finetune_job_gpus", "GPUs of the trainer pods that exist now")
JOB_CREATED = _gauge("finetune_job_created_timestamp_seconds", "When the job was created")
JOB_STARTED = _gauge("finetune_job_run_started_timestamp_seconds", "When the pods of the current or last attempt were asked for")
JOB_FINISHED = _gauge("finetune_job_finished_timestamp_seconds", "When the job reached a final phase")
JOB_LOST_STEPS = _counter("finetune_job_lost_steps_total", "Steps trained more than once, over all attempts")
JOB_USAGE = _counter(
    "finetune_job_device_seconds_total",
    "Time of the job's GPUs (device gpu), or of its ranks (device cpu), by use, over all attempts",
    "device",
    "use",
)
JOB_COST = _counter(
    "finetune_job_cost_total",
    "Cost of the job's GPU time at the prices of its GpuTypes, over all attempts; none without a price",
    "currency",
)

PER_JOB = (
    JOB_INFO, JOB_PHASE, JOB_WARNING, JOB_PROGRESS, JOB_STEP, JOB_TOTAL_STEPS, JOB_LOSS, JOB_EVAL_LOSS, JOB_TOKENS_PER_SECOND, JOB_ETA,
    JOB_LAST_PROGRESS, JOB_CHECKPOINT_STEP, JOB_CHECKPOINT_TIME, JOB_ATTEMPTS, JOB_RUN, JOB_PODS, JOB_GPUS, JOB_CREATED, JOB_STARTED,
    JOB_FINISHED, JOB_LOST_STEPS, JOB_USAGE, JOB_COST,
)  # fmt: skip

# --- served by the operator about all jobs ---

JOBS = Metric("finetune_jobs", Kind.GAUGE, "Jobs by phase", "phase")
ATTEMPTS_ENDED = Metric(
    "finetune_attempts_ended_total", Kind.COUNTER, "Attempts that ended, by outcome: Succeeded, Paused, ..., or a failure class", "outcome"
)
TRANSITIONS = Metric("finetune_job_transitions_total", Kind.COUNTER, "Times that a job entered a phase", "phase")
QUEUE_DURATION = Metric("finetune_job_queue_duration_seconds", Kind.HISTOGRAM, "Time jobs waited in phase Queued")
STARTUP_DURATION = Metric("finetune_job_startup_duration_seconds", Kind.HISTOGRAM, "Time from asking for pods to phase Training")
PAUSE_DURATION = Metric("finetune_job_pause_duration_seconds", Kind.HISTOGRAM, "Time from the request of a pause to phase Paused")

BUDGET_LABELS = ("finetune_namespace", "currency")
BUDGET_BALANCE = Metric("finetune_budget_balance", Kind.GAUGE, "What is left of the Budget: credits less settled", *BUDGET_LABELS)
BUDGET_RESERVED = Metric("finetune_budget_reserved", Kind.GAUGE, "What running jobs may still use of the Budget", *BUDGET_LABELS)
BUDGET_SETTLED = Metric("finetune_budget_settled", Kind.GAUGE, "What jobs, deleted ones too, have used of the Budget", *BUDGET_LABELS)
BUDGET_QUOTA = Metric(
    "finetune_budget_checkpoint_quota", Kind.GAUGE, "Checkpoints that jobs may write, where limited", "finetune_namespace"
)
BUDGET_CHECKPOINTS = Metric(
    "finetune_budget_checkpoints", Kind.GAUGE, "Checkpoints that jobs have written of the quota, deleted jobs too", "finetune_namespace"
)

BUDGET_AMOUNTS = (BUDGET_BALANCE, BUDGET_RESERVED, BUDGET_SETTLED)
BUDGETS = (*BUDGET_AMOUNTS, BUDGET_QUOTA, BUDGET_CHECKPOINTS)

FLEET = (JOBS, ATTEMPTS_ENDED, TRANSITIONS, QUEUE_DURATION, STARTUP_DURATION, PAUSE_DURATION)

# --- served by each operator replica about itself ---

OPERATOR_INFO = Metric("finetune_operator_info", Kind.GAUGE, "1; the operator's version is a label", "version")
LEADER = Metric("finetune_operator_leader", Kind.GAUGE, "1 on the replica that leads")
RECONCILES = Metric("finetune_operator_reconcile_total", Kind.COUNTER, "Looks at a job, by result: ok, again, error", "result")
RECONCILE_DURATION = Metric("finetune_operator_reconcile_duration_seconds", Kind.HISTOGRAM, "Duration of a look at a job")
QUEUE_DEPTH = Metric("finetune_operator_workqueue_depth", Kind.GAUGE, "Jobs that wait to be looked at")
QUEUE_OLDEST = Metric("finetune_operator_workqueue_oldest_seconds", Kind.GAUGE, "How long the longest waiting job has waited")
API_REQUESTS = Metric(
    "finetune_operator_api_requests_total",
    Kind.COUNTER,
    "Requests to the API server, verb and resource as in RBAC; watches are not counted (code 0: no answer)",
    "verb",
    "resource",
    "code",
)
WATCH_EVENTS = Metric("finetune_operator_watch_events_total", Kind.COUNTER, "Watch events received", "resource", "type")
PROGRESS_POSTS = Metric("finetune_operator_progress_posts_total", Kind.COUNTER, "Progress posts answered", "code")
PROGRESS_POST_DURATION = Metric("finetune_operator_progress_post_duration_seconds", Kind.HISTOGRAM, "Time to answer a progress post")
PROGRESS_PENDING = Metric("finetune_operator_progress_pending", Kind.GAUGE, "Jobs whose newest numbers are not in their status yet")
PROGRESS_OLDEST = Metric("finetune_operator_progress_oldest_seconds", Kind.GAUGE, "Age of the oldest numbers not in a status yet")
NOTIFICATIONS = Metric(
    "finetune_operator_notifications_total",
    Kind.COUNTER,
    "Events for the webhook, by delivery: sent, refused, unreachable, dropped",
    "delivery",
)
JOBS_KNOWN = Metric("finetune_operator_jobs_known", Kind.GAUGE, "FineTuneJobs the watch knows of")

OPERATOR = (
    OPERATOR_INFO, LEADER, RECONCILES, RECONCILE_DURATION, QUEUE_DEPTH, QUEUE_OLDEST, API_REQUESTS, WATCH_EVENTS, PROGRESS_POSTS,
    PROGRESS_POST_DURATION, PROGRESS_PENDING, PROGRESS_OLDEST, NOTIFICATIONS, JOBS_KNOWN,
)  # fmt: skip

ALL = (*TRAINER, *PER_JOB, *FLEET, *BUDGETS, *OPERATOR)


def series_of(metric: Metric) -> tuple[str, ...]:
    """Names of the series a metric has on a page."""
    if metric.kind is Kind.HISTOGRAM:
        return (f"{metric}_bucket", f"{metric}_sum", f"{metric}_count")
    return (str(metric),)
