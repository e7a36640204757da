from finetune_cli.describe import next_step, render_job
from tests.unit.finetune_cli.builders import make_checkpoint, make_job, make_progress, recording_console


def shown(job: object) -> str:
    console = recording_console(width=220)
    console.print(render_job(job))  # type: ignore[arg-type]
    return console.export_text()


def test_describe_tells_the_whole_story() -> None:
    """A-06, R-13, A-07: what is trained, how far, which checkpoints, which attempts, which conditions, what next."""
    job = make_job(
        "Paused",
        reason="UserRequested",
        progress=make_progress(40, loss=4.2),
        checkpoints={
            "latest": make_checkpoint(40),
            "best": make_checkpoint(20, evalLoss=4.5),
            "recent": [make_checkpoint(20, evalLoss=4.5), make_checkpoint(40)],
        },
        attempts=[{"run": 1, "attempt": 1, "reason": "Created", "startedAt": "2026-11-01T12:00:00Z", "toStep": 40, "outcome": "Paused"}],
        conditions=[
            {
                "type": "Ready",
                "status": "True",
                "reason": "UserRequested",
                "message": "paused at step 40",
                "lastTransitionTime": "2026-11-01T12:01:00Z",
            }
        ],
        resolved={"adapter.type": {"value": "lora", "source": "default"}, "method": {"value": "sft", "source": "default"}},
        usage={"productiveSeconds": 62.0},
        outputUri="s3://finetune/team/demo/u-1",
    )
    text = shown(job)
    for piece in (
        "demo (namespace team)",
        "Paused (UserRequested)",
        "sft, lora, batch ? x ?",
        "40/120",
        "20 (best)",
        "4.5000",
        "0 → 40",
        "paused at step 40",
        "training 1m02s",
        "Next: kubectl finetune resume demo -n team",
    ):
        assert piece in text


def test_a_failure_is_shown_with_its_advice() -> None:
    failure = {
        "class": "OOMKilled",
        "message": "the container ran out of memory",
        "exitCode": 137,
        "failedRank": 1,
        "advice": "raise resources.memory",
    }
    text = shown(make_job("Failed", failure=failure))
    for piece in (
        "OOMKilled",
        "the container ran out of memory",
        "exit code 137, rank 1",
        "raise resources.memory",
        "kubectl finetune retry demo -n team",
    ):
        assert piece in text


def test_next_step_follows_the_phase() -> None:
    assert next_step(make_job("Succeeded")) == "kubectl finetune curve demo -n team"
    assert next_step(make_job("Training")) == "kubectl finetune watch demo -n team"
    assert next_step(make_job("Cancelled")) == "kubectl delete finetunejob demo -n team"


def test_the_cost_is_shown_where_it_is_known() -> None:
    """L-02, A-08."""
    assert "; cost 12.3400 EUR" in shown(make_job("Training", usage={"productiveSeconds": 60, "cost": "12.3400", "currency": "EUR"}))
    assert "cost" not in shown(make_job("Training", usage={"productiveSeconds": 60}))


def test_the_estimated_memory_is_shown() -> None:
    """N-01: beforehand, of one GPU."""
    memory = {
        "parameters": 8_030_261_248,
        "trainableParameters": 6_815_744,
        "strategy": "ddp",
        "quantization": "4bit",
        "totalBytes": 9 * 2**30,
        "gpuBytes": 16 * 2**30,
        "targetModules": "q_proj,v_proj",
    }
    text = shown(make_job("Starting", estimate={"memory": memory}))
    assert "about 9.0 of 16.0 GiB per GPU (ddp, 4-bit base); 6,815,744 of 8,030,261,248 parameters train: q_proj, v_proj" in text


def test_the_estimated_length_is_shown() -> None:
    """O-15, J-06: steps, checkpoints and their size."""
    training = {"steps": 1000, "stopBy": "steps", "checkpoints": 10, "checkpointBytes": 81_788_928, "storeBytes": 354_418_688}
    assert "1000 optimizer steps (training.maxSteps), 10 checkpoints of 81.8 MB, 354.4 MB in the store at the end" in shown(
        make_job("Starting", estimate={"training": training})
    )
    unknown = {"steps": 250, "stopBy": "epochs"}
    assert "250 optimizer steps (training.epochs)" in shown(make_job("Starting", estimate={"training": unknown}))


def test_describe_shows_every_value_the_job_runs_with() -> None:
    """A-07, A-08: what the job wrote, what preset or Dataset decided, and all defaults; where it is seen live."""
    job = make_job(
        spec={"training": {"learningRate": 2e-4}, "suspend": False},
        resolved={
            "training.batchSize": {"value": "4", "source": "preset"},
            "dataset.format": {"value": "messages", "source": "dataset", "name": "support"},
            "training.seed": {"value": "42"},
            "adapter.rank": {"value": "16"},
        },
        dashboardURL="https://grafana.example/d/finetune-job?var-name=demo",
    )
    text = shown(job)
    rows = {tuple(line.split()) for line in text.splitlines()}
    assert {
        ("training.learningRate", "0.0002", "job"),
        ("training.batchSize", "4", "preset"),
        ("dataset.format", "messages", "dataset", "support"),
        ("Dashboard", "https://grafana.example/d/finetune-job?var-name=demo"),
    } <= rows
    assert "Defaults: training.seed=42, adapter.rank=16" in text


def test_describe_shows_how_each_attempt_ended() -> None:
    """T-06."""
    started, ended = "2026-11-01T12:00:00Z", "2026-11-01T12:07:00Z"
    failed = {"run": 1, "attempt": 1, "reason": "Created", "startedAt": started, "endedAt": ended, "outcome": "OOMKilled", "exitCode": 137}
    running = {"run": 2, "attempt": 2, "reason": "Retried", "startedAt": ended}
    rows = [tuple(line.split()) for line in shown(make_job(attempts=[failed, running])).splitlines()]
    assert ("1", "1", "Created", "0", "→", started, ended, "OOMKilled", "137") in rows
    assert ("2", "2", "Retried", "0", "→", ended, "running") in rows


def test_gpus_and_the_time_of_a_checkpoint_are_shown() -> None:
    """A-09, OP-11"""
    facts = {"sizeBytes": 40_000_000_000, "uploadBytesPerSecond": 50_000_000, "saveSeconds": 80.0, "uploadSeconds": 800.0}
    text = shown(make_job("Starting", gpus=8, estimate={"checkpoint": facts}))
    assert "0 of 1, 8 GPUs asked for" in text
    assert "40.0 GB, about 14m40s to save and upload at 50.0 MB/s" in text
    assert "GPUs" not in shown(make_job("Starting", gpus=0))
