"""What operator and trainer agree on: files, environment, store layout, progress protocol, exit codes, metric names.

The contract is versioned and only ever extended: a party accepts its own version and the one before. Readers ignore fields they do not
know.
"""

CONTRACT_VERSION = 1
ACCEPTED_CONTRACT_VERSIONS = (CONTRACT_VERSION - 1, CONTRACT_VERSION)
