"""PID 1 of a trainer pod: no torch; starts, watches and outlives the workers, and does all talking to the outside."""
