"""A FineTuneJob without a cluster: its pods are processes on this machine, its store is a directory."""
