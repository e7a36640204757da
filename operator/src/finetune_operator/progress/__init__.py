"""The progress endpoint: where rank 0 of every job posts, and gets its commands."""
