"""The job's objects: backends (S3, file), and the protocol that makes a checkpoint exist only when it is complete."""
