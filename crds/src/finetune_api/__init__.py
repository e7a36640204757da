"""The FineTuneJob API: models, defaults, schema generator and the contract between operator and trainer."""
