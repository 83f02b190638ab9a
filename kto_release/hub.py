"""What went wrong with the Hub, in words that say what to do: the one table, for reading and for writing."""

import re
from typing import NamedTuple

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

FAILURES: tuple[type[Exception], ...] = (
    HfHubHTTPError,
    httpx2.HTTPError,  # no OSError
    httpx2.InvalidURL,  # no HTTPError: an HF_ENDPOINT that is none
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    FileMetadataError,
    HFValidationError,
    EntryNotFoundError,
    ConnectionError,  # hf_xet's
    RuntimeError,  # huggingface_hub's own wrapper around a failed upload; hf_xet's
    ValueError,  # an answer that is no JSON
    KeyError,  # an answer that is not of the agreed form
)
"""What the client throws when the Hub refuses, fails, or can't be reached."""
READ_FAILURES: tuple[type[Exception], ...] = (*FAILURES, OSError)
"""The same while something is fetched, where the cache's disk may fail too."""

XET_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})")
"""How hf_xet, which throws plain ConnectionErrors, spells what the Hub answered."""

SIGNED = re.compile(r"(https?://[^\s?()]*)\?[^\s()]*")
"""An address with parameters, which may be a signature that lets anybody write."""

AGAIN = "run the same command again: what has arrived is not sent twice"
LOGIN = "`hf auth login`"


class Explained(NamedTuple):
    """A failure in words."""

    problem: str
    todo: str
    refused: bool = False
    """Whether the Hub was reached and said that there is no such thing, or not for us: the cache is no way out."""


def is_unreachable(error: BaseException) -> bool:
    """Whether asking the Hub again is no use now."""
    cause = _cause(error)
    return isinstance(cause, LocalTokenNotFoundError | httpx2.ConnectError | OfflineModeIsEnabled)


def explain_read(error: BaseException, what: str, repo_id: str, revision: str | None) -> Explained:
    """Why something of the Hub could not be read, and what to do.

    `what` is "model" or "data set".
    """
    cause = _cause(error)
    if isinstance(cause, GatedRepoError):
        return Explained(
            f"{repo_id!r} is gated, and you have no access", f"accept its terms on the Hub, then {LOGIN}", refused=True
        )
    if isinstance(cause, RevisionNotFoundError):
        return Explained(f"{repo_id!r} has no revision {revision!r}", "mend the revision", refused=True)
    if isinstance(cause, RepositoryNotFoundError | HFValidationError):
        return Explained(
            f"the Hub knows no {what} {repo_id!r}, or keeps it private",
            f"mend the name, or {LOGIN} for a private {what}",
            refused=True,
        )
    endpoint, again = constants.ENDPOINT, "run the same command again: what has arrived is not fetched twice"
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        if status in (401, 403):
            return Explained(f"{endpoint} refused ({status})", f"{LOGIN} with an account that may read {repo_id}")
        return _explain_status(status, "", _wait(cause), repo_id, endpoint, "", again)
    return _explain_connection(cause, endpoint, again)


def explain(error: BaseException, repo_id: str, endpoint: str, user: str) -> Explained:
    """Why something could not be written, and what to do.

    Never the address of an upload, which may hold a signature, nor a token.
    """
    cause = _cause(error)
    if isinstance(cause, GatedRepoError):
        return Explained(f"access to {repo_id} is gated", "ask for access on the Hub")
    if isinstance(cause, HfHubHTTPError):
        said = f" ({cause.server_message})" if cause.server_message else ""
        return _explain_status(cause.response.status_code, said, _wait(cause), repo_id, endpoint, user)
    of_xet = XET_STATUS.search(str(cause)) if isinstance(cause, ConnectionError) else None
    if of_xet is not None:
        if of_xet[1] == "404":
            return Explained(
                f"{endpoint} has no Xet storage", "set HF_HUB_DISABLE_XET=1, and run the same command again"
            )
        return _explain_status(int(of_xet[1]), "", None, repo_id, endpoint, user)
    if isinstance(cause, LocalTokenNotFoundError):
        return Explained(f"there is no token for {endpoint}", _login(repo_id))
    if isinstance(cause, HFValidationError):
        return Explained(f"{repo_id!r} can't be a repository's name: {_line(cause)}", "mend release.repo_id")
    return _explain_connection(cause, endpoint)


def _explain_connection(cause: BaseException, endpoint: str, again: str = AGAIN) -> Explained:
    """Whatever is no answer of the Hub."""
    if isinstance(cause, OfflineModeIsEnabled):
        return Explained("offline mode is on (HF_HUB_OFFLINE)", "unset HF_HUB_OFFLINE")
    if isinstance(cause, httpx2.TimeoutException):
        return Explained(f"{endpoint} did not answer in time", again)
    if isinstance(cause, httpx2.InvalidURL):
        return Explained(f"{endpoint!r} is no address: {_line(cause)}", "mend HF_ENDPOINT")
    if isinstance(cause, httpx2.HTTPError | ConnectionError | LocalEntryNotFoundError):
        return Explained(f"the connection to {endpoint} failed: {_line(cause)}", again)
    if isinstance(cause, OSError) and cause.errno is not None:
        return Explained(f"what {endpoint} sent can't be kept: {_line(cause)}", "see to the disk of the Hub's cache")
    return Explained(f"{endpoint} answered in a way that can't be understood: {_line(cause)}", again)


def _login(repo_id: str) -> str:
    return f"hf auth login, or set HF_TOKEN to a token that may write to {repo_id.split('/', maxsplit=1)[0]}"


def _wait(error: HfHubHTTPError) -> str | None:
    """Seconds that the Hub asks to wait."""
    return error.response.headers.get("Retry-After")


def _explain_status(
    status: int, said: str, wait: str | None, repo_id: str, endpoint: str, user: str, again: str = AGAIN
) -> Explained:
    if status in (401, 403):
        refused = f"{user!r} has no right to write to {repo_id}" if user else f"{endpoint} does not accept the token"
        return Explained(refused + said, _login(repo_id))
    known = {
        402: ("the account must pay for this", "look at the account's billing page"),
        404: (f"{repo_id} or a part of it is not there (404)", f"{again}, or mend release.repo_id"),
        409: (f"{repo_id} is being changed by something else (409)", again),
        412: (f"{repo_id} was changed by somebody while this ran (412)", again),
        429: ("too many requests (429)", f"wait {wait + ' s' if wait else 'a few minutes'}; {again}"),
    }
    failed = f"{endpoint} failed ({status})" if status >= 500 else f"{endpoint} refused ({status})"
    problem, todo = known.get(status, (failed, again))
    return Explained(problem + said, todo)


def _cause(error: BaseException) -> BaseException:
    """The first failure behind a wrapper: a failed LFS upload comes as a RuntimeError."""
    while isinstance(error, RuntimeError | LocalEntryNotFoundError) and isinstance(error.__cause__, FAILURES):
        error = error.__cause__
    return error


def _line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return SIGNED.sub(r"\1?…", line)
