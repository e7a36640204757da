"""Fixtures every kind of test may ask for."""

pytest_plugins = ["tests.support.cluster", "tests.support.crds"]
