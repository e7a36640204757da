"""The FineTuneJob operator: a kopf shell around a pure plan."""
