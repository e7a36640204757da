"""The environment of a worker: torchrun's variables, our own, and writable places for every library's cache."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from finetune_api.contract.run_config import Topology
from finetune_trainer.protocol import ENV_LINK, ENV_PREPARE_PLAN, ENV_WORKER_PLAN


def available_cpus(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs this container may use: its affinity, bounded by the cgroup's quota (rounded up)."""
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, -(-int(quota) // int(period))))


def process_environment(base: Mapping[str, str], *, work_dir: Path, link: Path, threads: int, device: str) -> dict[str, str]:
    """What workers and the prepare process have in common. Nothing may be written outside the work directory and /tmp."""
    caches = work_dir / "cache"
    return {
        **base,
        ENV_LINK: str(link),
        "HOME": str(work_dir),
        "XDG_CACHE_HOME": str(caches),
        "HF_HOME": str(caches / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "0",  # 1 would refuse local files named by URI as well
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DISABLE_KUBEFLOW_INTEGRATION": "TRUE",  # its callback blocks a step for 5 s when the endpoint is away
        "TOKENIZERS_PARALLELISM": "false",
        "TRITON_CACHE_DIR": str(caches / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "TORCH_EXTENSIONS_DIR": str(caches / "torch-extensions"),
        "MPLCONFIGDIR": str(caches / "matplotlib"),
        "OMP_NUM_THREADS": base.get("OMP_NUM_THREADS") or str(threads),
        "PYTHONUNBUFFERED": "1",
        # Threads that spin while they wait take the CPU from those they wait for: measured on two busy cores, 1.4 to 20 s per step became
        # 0.5 to 1.4 s. A GPU's ranks keep the default, their CPU threads are idle anyway.
        **({"OMP_WAIT_POLICY": base.get("OMP_WAIT_POLICY") or "PASSIVE"} if device == "cpu" else {}),
        # NCCL is silent by default, also about why it failed. All else is right as it is: it finds a pod's interface itself, and PyTorch
        # ends a rank whose peer is gone after distributed.timeoutSeconds.
        **({"NCCL_DEBUG": base.get("NCCL_DEBUG") or "WARN"} if device == "gpu" else {}),
    }


def worker_environment(common: Mapping[str, str], *, topology: Topology, pod: int, local_rank: int, plan: Path) -> dict[str, str]:
    """Torchrun's contract for one rank, and where its plan is."""
    return {
        **common,
        ENV_WORKER_PLAN: str(plan),
        "RANK": str(pod * topology.processes_per_replica + local_rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(topology.world_size),
        "LOCAL_WORLD_SIZE": str(topology.processes_per_replica),
        "GROUP_RANK": str(pod),
        "MASTER_ADDR": topology.master_addr,
        "MASTER_PORT": str(topology.master_port),
        # A model's own code is copied there to be imported; ranks that start together must not write each other's files.
        "HF_MODULES_CACHE": f"{common['HF_HOME']}/modules-{local_rank}",
    }


def prepare_environment(common: Mapping[str, str], *, plan: Path) -> dict[str, str]:
    """Environment of the prepare process."""
    return {**common, ENV_PREPARE_PLAN: str(plan)}
