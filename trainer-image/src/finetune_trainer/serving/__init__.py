"""Answers questions with what a job has trained (V-01 to V-14)."""
