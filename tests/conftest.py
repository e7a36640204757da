"""Fixtures and settings every kind of test shares."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["tests.support.cluster", "tests.support.crds", "tests.support.reliability"]

# The same examples every time, and no opinion about how fast the machine is.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")
