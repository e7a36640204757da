"""Opens the store of a run config."""

from __future__ import annotations

from finetune_api.contract.run_config import StoreConfig
from finetune_trainer.store.base import Store
from finetune_trainer.store.credentials import SecretFiles
from finetune_trainer.store.local import LocalStore, local_directory
from finetune_trainer.store.s3 import S3Store
from finetune_trainer.store.s3_client import S3Connection, parse_s3_uri


def open_store(config: StoreConfig, secret: SecretFiles) -> Store:
    """Store of a URI; nothing is asked of it yet. Raises TrainerError (ConfigurationError) for a URI of another scheme."""
    if config.uri.startswith("file:"):
        return LocalStore(local_directory(config.uri))
    return S3Store(S3Connection(parse_s3_uri(config.uri, endpoint=config.endpoint, region=config.region), secret))
