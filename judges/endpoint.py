"""One request to an OpenAI-compatible endpoint: its address, its key, and an answer or the fault that there was."""

import asyncio
import os
import random
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import openai

from kto_release.digests import sha256_of
from kto_release.errors import JudgeError
from kto_release.judges.faults import Fault, Kind, classify, classify_body, words_of
from kto_release.judges.reading import NoCompletion, read_body, read_error
from kto_release.recipe import OpenAIJudge as Section

DEFAULT_URL = "https://api.openai.com/v1"
ANTHROPIC_URL = "https://api.anthropic.com/v1"
"""Where a batch in Anthropic's form is sent; it stands for what judged."""
LONGEST_BACKOFF = 30.0
LONGEST_WAIT = 600.0
"""Seconds: a server that asks for more has closed for today."""


class Refused(Exception):  # noqa: N818 - what happened to one request
    """A request that got no answer, and its fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


class Endpoint:
    """Where a judge is asked. Raises `JudgeError` where there is no key, or the address is none."""

    def __init__(self, section: Section, backoff: float) -> None:
        self._section, self._backoff = section, backoff
        own = ANTHROPIC_URL if section.batch == "anthropic" else os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
        self._url = section.base_url or own
        self.key = self._api_key()
        self.host = section.endpoint or _host(self._url)
        # The whole address determines a verdict, unless the recipe names what is served there. It can hold credentials,
        # as headers can, so both are known by a digest alone.
        where = section.endpoint or self._url.rstrip("/")
        headers = [sorted(section.headers.items())] if section.headers else []
        self.digest = sha256_of([where, section.azure_api_version, *headers])
        self._open_at = 0.0

    def _api_key(self) -> str:
        key = os.environ.get(self._section.api_key_env)
        if key:
            return key
        if self._section.batch is None and (self._url == DEFAULT_URL or self._section.azure_api_version):
            raise JudgeError(
                f"no key for the judge: the environment variable {self._section.api_key_env} is not set",
                todo=f"export {self._section.api_key_env}=…, or name another variable in eval.judge.api_key_env",
            )
        return "no-key-needed"  # for files, and often for an endpoint of one's own; but the client insists

    def client(self) -> Any:
        """An asynchronous client, to be closed by the caller."""
        options: dict[str, Any] = {"api_key": self.key, "timeout": self._section.timeout, "max_retries": 0}
        options["default_headers"] = self._section.headers
        if self._section.azure_api_version:
            return openai.AsyncAzureOpenAI(
                azure_endpoint=self._url, api_version=self._section.azure_api_version, **options
            )
        return openai.AsyncOpenAI(base_url=self._url, **options)

    async def send(self, client: Any, messages: list[dict[str, str]], request: Mapping[str, Any]) -> dict[str, Any]:
        """The body of an answer. Raises `Refused` or `NoCompletion`."""
        await asyncio.sleep(max(0.0, self._open_at - time.monotonic()))
        try:
            # The parameters go as a body, since the client's signature knows OpenAI's alone.
            response = await client.chat.completions.with_raw_response.create(
                model=self._section.model, messages=messages, extra_body=dict(request)
            )
        except openai.OpenAIError as error:
            raise Refused(classify(error, self.key)) from None
        body = read_body(response.content)
        said = read_error(body)
        if said is not None:
            fault = classify_body(said, response.headers, self.key)
            if fault is not None:
                raise Refused(fault)
            raise NoCompletion(f"the answer is an error: {words_of(said) or said!r}")
        return body

    async def wait(self, fault: Fault, number: int) -> None:
        """Before the next try, of which `number` have been made. Raises `Refused` where that would be too long."""
        backoff = min(LONGEST_BACKOFF, self._backoff * 2 ** (number - 1)) * random.uniform(0.5, 1)
        if fault.crowded:
            backoff = min(LONGEST_BACKOFF, 2 * backoff + self._backoff)
        if fault.retry_after is None:
            await asyncio.sleep(backoff)
            return
        if fault.retry_after > LONGEST_WAIT:
            raise Refused(Fault(Kind.PERMANENT, f"{fault.reason}; it asks to wait {fault.retry_after:.0f} s"))
        # The server's word is for all of us: no other question is sent before, either.
        self._open_at = max(self._open_at, time.monotonic() + fault.retry_after)
        await asyncio.sleep(fault.retry_after + backoff * 0.1)


def _host(url: str) -> str:
    """Host and port of a URL: neither path nor credentials."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise JudgeError(f"eval.judge.base_url {url!r} is no address", expected="for example http://127.0.0.1:8000/v1")
    return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
