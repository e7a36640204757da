"""Draws the dashboards from a Prometheus.

Example::

    python -m finetune_monitoring --prometheus http://localhost:9090 --hours 6 --set name=chat-lora --out pictures
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from finetune_monitoring.documents import documents
from finetune_monitoring.drawing import draw
from finetune_monitoring.prometheus import Prometheus, QueryError
from finetune_monitoring.view import View


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="finetune_monitoring", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", required=True, help="address of the Prometheus")
    parser.add_argument("--hours", type=float, default=6, help="how far back (default: 6)")
    parser.add_argument("--scrape-seconds", type=float, default=30, help="its scrape interval (default: 30)")
    parser.add_argument("--set", action="append", default=[], metavar="VARIABLE=VALUE", help="a variable of the dashboards")
    parser.add_argument("--out", type=Path, required=True, help="directory for the pictures")
    options = parser.parse_args()
    chosen = dict(pair.partition("=")[::2] for pair in options.set)
    now = time.time()
    view = View(Prometheus(options.prometheus), now - options.hours * 3600, now, options.scrape_seconds)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        for path, text in documents().items():
            if path.endswith(".json"):
                draw(json.loads(text), view, chosen, options.out / Path(path).with_suffix(".png").name)
    except QueryError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
