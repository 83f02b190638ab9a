"""What went wrong with the Hub, in words that say what to do."""

from typing import NamedTuple

import httpx2
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

FAILURES: tuple[type[Exception], ...] = (
    HfHubHTTPError,
    httpx2.HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    FileMetadataError,
    HFValidationError,
    LocalEntryNotFoundError,
    ConnectionError,  # hf_xet's
    RuntimeError,  # huggingface_hub's own wrapper around a failed upload; hf_xet's
    ValueError,  # an answer that is no JSON, or not of the agreed form
)
"""What the client throws when the Hub refuses, fails, or can't be reached."""


class Explained(NamedTuple):
    """A failure in words."""

    problem: str
    todo: str


def is_unreachable(error: BaseException) -> bool:
    """Whether asking the Hub again is no use now."""
    cause = _cause(error)
    return isinstance(cause, LocalTokenNotFoundError | httpx2.ConnectError | OfflineModeIsEnabled)


def explain(error: BaseException, repo_id: str, endpoint: str, user: str) -> Explained:
    """What is wrong and what to do. Never the address of an upload, which may hold a signature, nor a token."""
    cause = _cause(error)
    login = f"hf auth login, or set HF_TOKEN to a token that may write to {repo_id.split('/', maxsplit=1)[0]}"
    again = "run the same command again: what has arrived is not sent twice"
    if isinstance(cause, LocalTokenNotFoundError):
        return Explained(f"there is no token for {endpoint}", login)
    if isinstance(cause, OfflineModeIsEnabled):
        return Explained("offline mode is on (HF_HUB_OFFLINE)", "unset HF_HUB_OFFLINE")
    if isinstance(cause, HFValidationError):
        return Explained(f"{repo_id!r} can't be the name of a repository: {_line(cause)}", "mend release.repo_id")
    if isinstance(cause, HfHubHTTPError):
        return _explain_status(cause, repo_id, endpoint, user, login, again)
    if isinstance(cause, httpx2.TimeoutException):
        return Explained(f"{endpoint} did not answer in time", again)
    if isinstance(cause, httpx2.HTTPError | ConnectionError | LocalEntryNotFoundError):
        return Explained(f"the connection to {endpoint} failed: {_line(cause)}", again)
    return Explained(f"{endpoint} answered in a way that can't be understood: {_line(cause)}", again)


def _explain_status(error: HfHubHTTPError, repo_id: str, endpoint: str, user: str, login: str, again: str) -> Explained:
    status = error.response.status_code
    said = f" ({error.server_message})" if error.server_message else ""
    me = f"{user!r}" if user else "this token"
    if isinstance(error, GatedRepoError):
        return Explained(f"access to {repo_id} is gated{said}", "ask for access on the Hub")
    if status == 401 and not user:
        return Explained(f"{endpoint} does not accept the token{said}", login)
    if status in (401, 403):
        return Explained(f"{me} has no right to write to {repo_id}{said}", login)
    if status == 402:
        return Explained(f"the account must pay for this{said}", "look at the account's billing page")
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return Explained(f"{repo_id} or a part of it is not there (404){said}", f"{again}, or mend release.repo_id")
    if status == 409:
        return Explained(f"{repo_id} is being changed by something else (409){said}", again)
    if status == 412:
        return Explained(f"{repo_id} was changed by somebody while this ran (412){said}", again)
    if status == 429:
        wait = error.response.headers.get("Retry-After")
        return Explained(f"too many requests (429){said}", f"wait {wait + ' s' if wait else 'a few minutes'}; {again}")
    if status >= 500:
        return Explained(f"{endpoint} failed ({status}){said}", again)
    return Explained(f"{endpoint} refused ({status}){said}", again)


def _cause(error: BaseException) -> BaseException:
    """The first failure behind a wrapper: a failed LFS upload comes as a RuntimeError."""
    while isinstance(error, RuntimeError | LocalEntryNotFoundError) and isinstance(error.__cause__, FAILURES):
        error = error.__cause__
    return error


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
