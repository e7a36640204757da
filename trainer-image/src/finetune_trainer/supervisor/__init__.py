"""What a trainer pod runs: no torch; starts, watches and outlives the workers, and does all talking to the outside."""
