"""What can go wrong with a store, told apart by what helps: other credentials, patience, or another key."""

from __future__ import annotations

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError


class StorageAuthError(TrainerError):
    """The store refuses the credentials; a retry cannot help."""

    def __init__(self, message: str) -> None:
        super().__init__(FailureClass.STORAGE_AUTH, message)


class StorageUnavailableError(TrainerError):
    """The store did not answer before the deadline."""

    def __init__(self, message: str) -> None:
        super().__init__(FailureClass.STORAGE_UNAVAILABLE, message)


class ObjectNotFoundError(Exception):
    """No object of that key."""

    def __init__(self, url: str) -> None:
        super().__init__(f"{url} does not exist")
        self.url = url


class TransientStoreError(Exception):
    """One request failed in a way that the next one may not; never leaves the store package."""


class DigestMismatchError(Exception):
    """Bytes of an object are not those its manifest promises."""

    def __init__(self, url: str, wanted: str, found: str) -> None:
        super().__init__(f"{url} has sha256 {found[:12]}…, its manifest says {wanted[:12]}…")
        self.url = url
