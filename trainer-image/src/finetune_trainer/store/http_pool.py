"""HTTP connections to one server, through the proxy that the environment names for it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3


def proxy_for(url: str) -> str | None:
    """Proxy for a URL by ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` (either case); None = ask directly."""
    proxies = getproxies()
    parts = urlsplit(url)
    if parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")


def http_pool(url: str, **options: Any) -> urllib3.PoolManager:
    """Pool for a server; ``options`` are urllib3's."""
    proxy = proxy_for(url)
    return urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
