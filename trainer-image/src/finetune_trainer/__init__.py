"""The trainer image: supervisor, workers and the checkpoint store protocol."""
