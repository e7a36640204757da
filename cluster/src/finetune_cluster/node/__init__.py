"""A single-node Kubernetes made of processes on this machine, without Docker."""
