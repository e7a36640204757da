#!/usr/bin/env python3
"""Wait until the API server serves the kinds that were installed a moment ago: ``await_kinds.py GROUP VERSION SECONDS PLURAL...``.

A CustomResourceDefinition is served some seconds after it is stored; Helm does not wait for that before it creates objects of the kind.
"""

from __future__ import annotations

import sys
import time

from kubernetes import client, config


def served(api: client.CustomObjectsApi, group: str, version: str) -> set[str]:
    """Plural names the API server serves in a group and version; none if it does not know the group yet."""
    try:
        return {resource.name for resource in api.get_api_resources(group, version).resources}
    except client.ApiException as error:
        if error.status != 404:
            raise
        return set()


def main(group: str, version: str, seconds: str, *plurals: str) -> int:
    """Wait at most so many seconds; 1 if a kind is still missing then."""
    config.load_incluster_config()
    api = client.CustomObjectsApi()
    deadline = time.monotonic() + float(seconds)
    while missing := set(plurals) - served(api, group, version):
        if time.monotonic() > deadline:
            sys.stderr.write(f"{group}/{version} is not served with {sorted(missing)}: install the CRDs (crds.install=true)\n")
            return 1
        time.sleep(1)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
