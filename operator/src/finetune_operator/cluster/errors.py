"""What can go wrong with a request to the API server, as types to act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """The API server refused or could not be reached. Not one of the cases below: try again later."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NotFoundError(ApiError):
    """404: the object (or its kind) does not exist."""


class ConflictError(ApiError):
    """409: the object changed since it was read. Also 409 or 422: it is another one of the same name (uid precondition)."""


class AlreadyExistsError(ApiError):
    """409 of a POST: the name is taken."""


class InvalidError(ApiError):
    """422 or 400: the object is not acceptable as it is."""


class ForbiddenError(ApiError):
    """403: the operator's rights do not suffice, or an admission policy or a quota refuses."""


class NamespaceTerminatingError(ForbiddenError):
    """403: nothing can be created in this namespace any more."""


class UnauthorizedError(ApiError):
    """401: the operator's own credentials are not accepted."""


class OverloadedError(ApiError):
    """429: wait, then try again."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float) -> None:
        super().__init__(status, reason, message)
        self.retry_after = retry_after


class UnreachableError(ApiError):
    """No answer: connection, timeout, or 5xx."""


class NotLeaderError(Exception):
    """Another replica leads now (or may): nothing may be written."""


class TakenError(Exception):
    """An object of the wanted name exists and belongs to somebody else."""


def error_of(status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> ApiError:
    """The error of a failed answer (a ``Status`` object, if the body is one)."""
    reason = str(body.get("reason", ""))
    message = str(body.get("message", ""))
    details = (body.get("details") or {}).get("causes") or ()
    causes = [cause.get("reason") for cause in details]
    fields = [cause.get("field") for cause in details]
    match status:
        case 403 if "NamespaceTerminating" in causes:
            return NamespaceTerminatingError(status, reason, message)
        case 409 if reason == "AlreadyExists":
            return AlreadyExistsError(status, reason, message)
        case 422 if "metadata.uid" in fields:
            return ConflictError(status, reason, message)
        case 429:
            return OverloadedError(status, reason, message, _seconds(headers.get("Retry-After")))
        case _ if status >= 500:
            return UnreachableError(status, reason, message)
        case _:
            return _BY_STATUS.get(status, ApiError)(status, reason, message)


_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: InvalidError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    422: InvalidError,
}


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isdigit() else 1.0
