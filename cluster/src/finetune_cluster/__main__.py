"""Entry point of `finetune-cluster` and `python -m finetune_cluster`."""

from finetune_cluster.cli import app

__all__ = ["app"]

if __name__ == "__main__":
    app()
