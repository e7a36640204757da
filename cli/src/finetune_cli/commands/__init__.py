"""The commands: thin functions that read options, call what does the work, and print."""
