"""One training rank: a flat script over transformers, trl and peft. It saves to local disk and hands finished saves to its supervisor."""
