"""What can go wrong between us and the API server, translated once."""

from __future__ import annotations


class ApiError(Exception):
    """An answer that is no success, or none at all (``status`` 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else f"{reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class ConflictError(ApiError):
    """409: another object has that name, the object has changed since it was read, or it is another one (uid)."""


class ForbiddenError(ApiError):
    """403: RBAC, an admission rule, or a namespace that is being deleted."""


class InvalidError(ApiError):
    """422: the API server refuses the object itself; sending it again cannot help."""


class UnavailableError(ApiError):
    """No answer, 429 or 5xx: worth another try later. The request may have been carried out."""


def error_of(status: int, reason: str, message: str) -> ApiError:
    """The exception for an answer."""
    match status:
        case 409:
            return ConflictError(status, reason, message)
        case 403:
            return ForbiddenError(status, reason, message)
        case 422:
            return InvalidError(status, reason, message)
        case 0 | 429:
            return UnavailableError(status, reason, message)
        case _ if status >= 500:
            return UnavailableError(status, reason, message)
        case _:
            return ApiError(status, reason, message)
