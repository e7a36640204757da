"""The pure part: from what is there to what must change. No I/O, no clock, no randomness."""
