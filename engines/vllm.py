"""The vLLM engine: offline, in a process of its own, which ends when ours does, however ours ends.

The process keeps vLLM's output out of our terminal (it goes to a log file of the run), gives all memory back when it is
closed, and leads a process group: where vLLM starts workers (tensor or pipeline parallelism), all end together. One
device needs no worker: there vLLM's own engine process is switched off, since it survives a killed parent (vLLM 0.32).
Data parallelism is one such process for each replica, each with its share of the GPUs.
"""

import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Iterator, Sequence
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from kto_release.engines import Completion, EngineKind, Model, Request, Sampling, version_of
from kto_release.errors import EngineError
from kto_release.recipe import EngineSection

MAX_LOGPROBS = 64
"""Tokens whose log-probability a judge may ask for at once: every spelling of two letters is about ten."""

SECONDS_TO_CLOSE = 20


class VllmEngine:
    """One process with vLLM for each replica."""

    kind: EngineKind = "vllm"

    def __init__(self, model: Model, section: EngineSection, *, longest: int, log: Path) -> None:
        self.version, self.longest, self.log = version_of("vllm"), longest, log
        log.parent.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {
            "model": str(model.folder),
            "dtype": model.dtype,
            "trust_remote_code": model.trust_remote_code,
            "max_model_len": longest,
            "tensor_parallel_size": section.tensor_parallel_size,
            "pipeline_parallel_size": section.pipeline_parallel_size,
            "gpu_memory_utilization": section.gpu_memory_utilization,
            "max_logprobs": MAX_LOGPROBS,
            "skip_tokenizer_init": True,
            "disable_log_stats": True,
            **section.options,
        }
        devices = section.tensor_parallel_size * section.pipeline_parallel_size
        self._replicas = [_start(options, rank, devices, log) for rank in range(section.data_parallel_size)]
        self._finalizer = weakref.finalize(self, _close, self._replicas)
        # Each says that it is ready, and on what, or why it can't be.
        [device, *_] = [self._receive(replica.pipe) for replica in self._replicas]
        self.hardware = f"{devices * section.data_parallel_size} x {device}" if device else None

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """See `Engine`."""
        for request in requests:
            if len(request.ids) >= self.longest:
                raise EngineError(
                    f"a prompt of {len(request.ids)} tokens leaves no room for an answer",
                    expected=f"fewer than {self.longest} tokens: the model's context, or engine.max_model_len",
                )
        return self._spread("generate", [(index, request) for index, request in enumerate(requests)], sampling)

    def next_logprobs(self, prompts: Sequence[list[int]], tokens: Sequence[int]) -> Iterator[tuple[int, list[float]]]:
        """See `Engine`."""
        for ids in prompts:
            if len(ids) >= self.longest:
                raise EngineError(f"a prompt of {len(ids)} tokens", expected=f"fewer than {self.longest}")
        return self._spread("next_logprobs", [*enumerate(prompts)], list(tokens))

    def _spread(self, command: str, work: Sequence[tuple[int, Any]], how: Any) -> Iterator[tuple[int, Any]]:
        """Give each replica its share, and yield what comes back as it comes."""
        busy = set()
        for rank, replica in enumerate(self._replicas):
            share = work[rank :: len(self._replicas)]
            if share:
                self._send(replica.pipe, (command, share, how))
                busy.add(replica.pipe)
        while busy:
            for pipe in connection.wait(list(busy)):
                answer = self._receive(pipe)
                if answer is None:
                    busy.discard(pipe)
                else:
                    yield answer

    def _send(self, pipe: Connection, message: Any) -> None:
        try:
            pipe.send(message)
        except OSError:
            raise self._died() from None

    def _receive(self, pipe: Any) -> Any:
        try:
            kind, content = pipe.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if kind == "failed":
            raise EngineError(f"vLLM: {content}", todo=f"see {self.log.name} in the run directory")
        return content

    def _died(self) -> EngineError:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if self.log.exists() else []
        return EngineError(
            f"vLLM's process ended by itself; its last words: {lines[-1] if lines else 'none'!r}",
            todo=f"see {self.log.name} in the run directory; out of memory is the usual cause",
        )

    def close(self) -> None:
        """See `Engine`."""
        self._finalizer()


class _Replica(NamedTuple):
    process: Any
    pipe: Connection
    lifeline: Connection
    """Held open by us and read by nobody: when it closes, the replica ends itself and all that it started."""


def _start(options: dict[str, Any], rank: int, devices: int, log: Path) -> _Replica:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    listening, lifeline = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, listening, options, rank, devices, str(log)))
    process.start()
    theirs.close()
    listening.close()
    return _Replica(process, ours, lifeline)


def _close(replicas: Sequence[_Replica]) -> None:
    """Let each replica end by itself, then make sure of it, and of everything that it started."""
    for replica in replicas:
        replica.pipe.close()
    for replica in replicas:
        replica.process.join(SECONDS_TO_CLOSE)
        replica.lifeline.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(replica.process.pid, signal.SIGKILL)
        if replica.process.is_alive():
            replica.process.kill()
        replica.process.join()


def _serve(pipe: Connection, lifeline: Connection, options: dict[str, Any], rank: int, devices: int, log: str) -> None:
    """The life of a replica: load, then do as told until the pipe or the lifeline closes."""
    os.setsid()
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    environment(rank, devices)
    try:
        worker = _Worker(options)
    # vLLM's own errors have no common base, and whatever it was, the reader must hear of it.
    except Exception as error:
        _report(pipe, error)
        raise
    pipe.send(("ready", worker.device))
    while True:
        try:
            command, work, how = pipe.recv()
        except EOFError:
            return
        try:
            for index, result in getattr(worker, command)(work, how):
                pipe.send(("one", (index, result)))
            pipe.send(("end", None))
        except BrokenPipeError:
            return
        except Exception as error:
            _report(pipe, error)
            raise


def _report(pipe: Connection, error: Exception) -> None:
    lines = str(error).strip().splitlines()
    with contextlib.suppress(OSError):
        pipe.send(("failed", f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"))


def _end_with(lifeline: Connection) -> None:
    """Wait until the other end is closed, by its owner or by its owner's death; then end the whole group at once."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv_bytes()
    os.killpg(0, signal.SIGKILL)


def environment(rank: int, devices: int) -> None:
    """What vLLM reads from the environment, some of it when it is imported."""
    if devices == 1:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; the default takes half of the machine's memory
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    mine = range(rank * devices, (rank + 1) * devices)
    if rank or visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[n] if n < len(visible) else str(n) for n in mine)


class _Worker:
    """vLLM itself, in the replica."""

    def __init__(self, options: dict[str, Any]) -> None:
        from vllm import LLM
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            # Compiling takes minutes on two cores (185 s for SmolLM2-135M, where loading takes 12 s).
            options = {"enforce_eager": True, **options}
        self.device = None if current_platform.is_cpu() else current_platform.get_device_name()
        self.engine = LLM(**options).llm_engine

    def generate(self, work: Sequence[tuple[int, Request]], how: Sampling) -> Iterator[tuple[int, Completion]]:
        """All requests are queued at once, and vLLM batches them as it likes."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        for index, request in work:
            parameters = SamplingParams(
                temperature=how.temperature,
                top_p=how.top_p,
                top_k=how.top_k or 0,
                max_tokens=how.max_tokens,
                seed=request.seed,
                stop_token_ids=list(how.stop_ids),
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            self._add(index, request.ids, parameters)
        for index, output in self._finished():
            ids = list(output.token_ids)
            if ids and ids[-1] in how.stop_ids:
                ids.pop()
            yield index, Completion(ids, "length" if output.finish_reason == "length" else "stop")

    def next_logprobs(self, work: Sequence[tuple[int, list[int]]], how: list[int]) -> Iterator[tuple[int, list[float]]]:
        """Exactly the log-probabilities of the tokens in `how`, whether likely or not."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            temperature=0,
            max_tokens=1,
            logprob_token_ids=how,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        for index, ids in work:
            self._add(index, ids, parameters)
        for index, output in self._finished():
            yield index, [float(output.logprobs[0][token].logprob) for token in how]

    def _add(self, index: int, ids: list[int], parameters: Any) -> None:
        from vllm.inputs import TokensPrompt

        self.engine.add_request(str(index), TokensPrompt(prompt_token_ids=ids), parameters)

    def _finished(self) -> Iterator[tuple[int, Any]]:
        while self.engine.has_unfinished_requests():
            for output in self.engine.step():
                if output.finished:
                    yield int(output.request_id), output.outputs[0]
