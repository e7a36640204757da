"""A Kubernetes cluster for tests and the demo: kind, a named context, or a single node from packages."""
