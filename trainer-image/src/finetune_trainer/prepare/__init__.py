"""Raw rows in, rows ready for training out: read, check, split, tokenise, cut, pack. Runs in a process of its own, without torch."""
