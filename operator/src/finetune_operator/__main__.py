"""``finetune-operator run``: everything else is set by the environment (see :mod:`finetune_operator.settings`)."""

from __future__ import annotations

import argparse
import asyncio
import sys

from pydantic import ValidationError

from finetune_operator import app, logs
from finetune_operator.settings import Settings


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="finetune-operator", description="The FineTuneJob operator. Settings: environment, prefix FINETUNE_OPERATOR_."
    )
    parser.add_argument("verb", choices=["run"], help="run: watch and act until SIGTERM")
    parser.parse_args()
    try:
        settings = Settings()
    except ValidationError as error:
        lines = [
            f"FINETUNE_OPERATOR_{str(e['loc'][0]).upper() if e['loc'] else 'SETTINGS'}: {e['msg']}" for e in error.errors(include_url=False)
        ]
        sys.stderr.write("\n".join(lines) + "\n")
        return 2
    logs.configure(settings.log_level)
    asyncio.run(app.run(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
