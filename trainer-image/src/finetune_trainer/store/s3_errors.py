"""Turns what the S3 SDK raises into our few kinds of error, once, with bucket, key, Secret and fix named."""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass

import urllib3.exceptions
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from finetune_trainer.errors import configuration_error
from finetune_trainer.store.errors import ObjectNotFoundError, StorageAuthError, TransientStoreError

AUTH_CODES = frozenset(
    {
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "Forbidden",
        "InvalidAccessKeyId",
        "InvalidSecurity",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "Unauthorized",
    }
)
MISSING_CODES = frozenset({"NoSuchKey", "NoSuchObject", "NoSuchVersion", "ResourceNotFound"})
TRANSIENT_4XX = frozenset(
    {"RequestTimeout", "OperationAborted", "ConditionalRequestConflict", "BadDigest", "IncompleteBody", "SlowDown", "NoSuchUpload"}
)
SDK_ERRORS = (MinioException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError)
"""All the SDK and its HTTP client raise; ValueError is the SDK's complaint about names it does not accept."""


@dataclass(frozen=True)
class Place:
    """Where a request went, for messages."""

    url: str
    bucket: str
    endpoint: str
    secret: str


class RefusedError(TransientStoreError):
    """The credentials were refused: worth another try only while the Secret may be rotating."""

    def __init__(self, auth_error: StorageAuthError) -> None:
        super().__init__(auth_error.message)
        self.auth_error = auth_error


def translate(error: Exception, place: Place) -> Exception:
    """Our error for one that :data:`SDK_ERRORS` caught."""
    match error:
        case S3Error():
            return translate_code(error.code or "", error.message or "", error.response.status, place)
        case ServerError():
            return TransientStoreError(f"{place.endpoint} answers status {error.status_code}")
        case InvalidResponseError():
            return TransientStoreError(f"{place.endpoint} does not answer like an S3 service: {_first_line(error)}")
        case urllib3.exceptions.HTTPError() if _is_certificate_problem(error):
            return configuration_error(
                f"The certificate of {place.endpoint} is not trusted: put its CA into the key ca.crt of Secret {place.secret}, "
                "or correct AWS_ENDPOINT_URL."
            )
        case ValueError() if not isinstance(error, OSError):
            return configuration_error(f"{place.url} cannot be used: {_first_line(error)}")
        case _:
            pass
    return TransientStoreError(f"{place.endpoint}: {_first_line(error)}")


def translate_code(code: str, message: str, status: int, place: Place) -> Exception:
    """Our error for an S3 error document."""
    if code in MISSING_CODES:
        return ObjectNotFoundError(place.url)
    if code == "NoSuchBucket":
        return configuration_error(
            f"Bucket {place.bucket} does not exist at {place.endpoint}: create it, or correct the URI {place.url} or the key "
            f"AWS_ENDPOINT_URL of Secret {place.secret}."
        )
    if code == "RequestTimeTooSkewed":
        return RefusedError(
            StorageAuthError(
                f"{place.endpoint} refuses access to {place.url} ({code}): this node's clock and the store's differ by more than S3 allows "
                "(15 minutes); set the time of the one that is wrong."
            )
        )
    if code in AUTH_CODES or status in (401, 403):
        return RefusedError(
            StorageAuthError(
                f"{place.endpoint} refuses access to {place.url} ({code or status}): the keys in Secret {place.secret} must be valid and "
                f"allowed to list, read, write and delete in bucket {place.bucket}."
            )
        )
    if status >= 500 or code in TRANSIENT_4XX or status in (408, 409, 429):
        return TransientStoreError(f"{place.endpoint}: {code or status} {message}".strip())
    return configuration_error(f"{place.endpoint} does not accept {place.url}: {code} {message}".strip())


def error_code(body: bytes) -> str:
    """Code of an S3 error document, empty when there is none."""
    match = re.search(rb"<Code>([^<]{1,64})</Code>", body)
    return match[1].decode() if match else ""


def _is_certificate_problem(error: BaseException) -> bool:
    """Whether the peer's certificate was refused: no retry mends that."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def _first_line(error: Exception) -> str:
    """Kind and first line of an error's text, bounded."""
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:300]
