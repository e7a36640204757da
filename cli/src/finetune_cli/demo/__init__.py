"""``make demo``: from a bare machine to a trained adapter, doing what a user would do and showing each command."""
