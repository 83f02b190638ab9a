"""Judging while answers are still generated, where the judge needs no device of ours.

The judge works in a thread, on questions that are put into a feed as answers finish. What it says goes to the same
journal as ever, so a kill loses as little, and what remains is judged when generation is done.
"""

import threading
from types import TracebackType

from kto_release import console
from kto_release.judges.asking import Journal
from kto_release.judges.feed import Feed
from kto_release.judges.judge import Judge, Question

POLL = 0.2
"""Seconds between two looks at how far the judge is."""


class Beside:
    """A judge at work in a thread. Leaving the block waits for it, or stops it where an error ends the block."""

    def __init__(self, judge: Judge, journal: Journal) -> None:
        self._judge, self._journal = judge, journal
        self._feed = Feed()
        self._given: set[str] = set()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="judge", daemon=True)

    def _work(self) -> None:
        try:
            self._judge.ask(self._feed, self._journal.keep)
        except BaseException as error:  # noqa: BLE001 - carried to the thread that waits
            self._error = error
        finally:
            self._feed.abandon()

    def put(self, question: Question) -> None:
        """Have a question asked, once. Raises what stopped the judge, if it has stopped."""
        if self._error is not None:
            raise self._error
        if question.key not in self._given and question.key not in self._journal.verdicts:
            self._given.add(question.key)
            self._feed.put(question)

    def __enter__(self) -> "Beside":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._feed.abandon()
            self._thread.join()
            return
        self._feed.close()
        with console.progress() as display:
            task = display.add_task("judgements", total=len(self._given), completed=self._done())
            while self._thread.is_alive():
                self._thread.join(POLL)
                display.update(task, completed=self._done())
        if self._error is not None:
            raise self._error

    def _done(self) -> int:
        return sum(key in self._journal.verdicts or key in self._journal.failures for key in list(self._given))
