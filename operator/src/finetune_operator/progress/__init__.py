"""The progress endpoint: trainers post, every replica answers; what matters is stored before the answer."""
