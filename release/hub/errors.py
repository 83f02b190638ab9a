"""What went wrong with the Hub, in words that say what to do."""

import re
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
    ValueError,  # an answer that is no JSON
    KeyError,  # an answer that is not of the agreed form
)
"""What the client throws when the Hub refuses, fails, or can't be reached."""


XET_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})")
"""How hf_xet, which throws plain ConnectionErrors, spells what the Hub answered."""

SIGNED = re.compile(r"(https?://[^\s?()]*)\?[^\s()]*")
"""An address with parameters, which may be a signature that lets anybody write."""

AGAIN = "run the same command again: what has arrived is not sent twice"


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
    if isinstance(cause, GatedRepoError):
        return Explained(f"access to {repo_id} is gated", "ask for access on the Hub")
    if isinstance(cause, HfHubHTTPError):
        said = f" ({cause.server_message})" if cause.server_message else ""
        wait = cause.response.headers.get("Retry-After")
        return _explain_status(cause.response.status_code, said, wait, repo_id, endpoint, user)
    of_xet = XET_STATUS.search(str(cause)) if isinstance(cause, ConnectionError) else None
    if of_xet is not None:
        if of_xet[1] == "404":
            return Explained(
                f"{endpoint} has no Xet storage", "set HF_HUB_DISABLE_XET=1, and run the same command again"
            )
        return _explain_status(int(of_xet[1]), "", None, repo_id, endpoint, user)
    kinds: list[tuple[type[BaseException] | tuple[type[BaseException], ...], str, str]] = [
        (LocalTokenNotFoundError, f"there is no token for {endpoint}", _login(repo_id)),
        (OfflineModeIsEnabled, "offline mode is on (HF_HUB_OFFLINE)", "unset HF_HUB_OFFLINE"),
        (HFValidationError, f"{repo_id!r} can't be a repository's name: {_line(cause)}", "mend release.repo_id"),
        (httpx2.TimeoutException, f"{endpoint} did not answer in time", AGAIN),
        (
            (httpx2.HTTPError, ConnectionError, LocalEntryNotFoundError),
            f"the connection to {endpoint} failed: {_line(cause)}",
            AGAIN,
        ),
    ]
    for kind, problem, todo in kinds:
        if isinstance(cause, kind):
            return Explained(problem, todo)
    return Explained(f"{endpoint} answered in a way that can't be understood: {_line(cause)}", AGAIN)


def _login(repo_id: str) -> str:
    return f"hf auth login, or set HF_TOKEN to a token that may write to {repo_id.split('/', maxsplit=1)[0]}"


def _explain_status(status: int, said: str, wait: str | None, repo_id: str, endpoint: str, user: str) -> Explained:
    if status in (401, 403):
        refused = f"{user!r} has no right to write to {repo_id}" if user else f"{endpoint} does not accept the token"
        return Explained(refused + said, _login(repo_id))
    known = {
        402: ("the account must pay for this", "look at the account's billing page"),
        404: (f"{repo_id} or a part of it is not there (404)", f"{AGAIN}, or mend release.repo_id"),
        409: (f"{repo_id} is being changed by something else (409)", AGAIN),
        412: (f"{repo_id} was changed by somebody while this ran (412)", AGAIN),
        429: ("too many requests (429)", f"wait {wait + ' s' if wait else 'a few minutes'}; {AGAIN}"),
    }
    failed = f"{endpoint} failed ({status})" if status >= 500 else f"{endpoint} refused ({status})"
    problem, todo = known.get(status, (failed, AGAIN))
    return Explained(problem + said, todo)


def _cause(error: BaseException) -> BaseException:
    """The first failure behind a wrapper: a failed LFS upload comes as a RuntimeError."""
    while isinstance(error, RuntimeError | LocalEntryNotFoundError) and isinstance(error.__cause__, FAILURES):
        error = error.__cause__
    return error


def _line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return SIGNED.sub(r"\1?…", line)
