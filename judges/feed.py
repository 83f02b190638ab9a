"""Questions that come while others are being asked."""

import threading
from collections import deque
from collections.abc import Iterator

from kto_release.judges.judge import Question


class Feed(Iterator[Question]):
    """Questions as they come: asking for the next one waits until there is one, or until there will be none."""

    def __init__(self) -> None:
        self._waiting: deque[Question] = deque()
        self._ended = False
        self._change = threading.Condition()

    def put(self, question: Question) -> None:
        """One more."""
        with self._change:
            self._waiting.append(question)
            self._change.notify()

    def close(self) -> None:
        """There will be no more; what waits is still given out."""
        with self._change:
            self._ended = True
            self._change.notify_all()

    def abandon(self) -> None:
        """Nobody asks any longer: whoever waits for a question gets none."""
        with self._change:
            self._waiting.clear()
        self.close()

    def __next__(self) -> Question:
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._ended)
            if not self._waiting:
                raise StopIteration
            return self._waiting.popleft()


class Waiting(list[Question]):
    """Questions that are all there before the first is asked."""

    def abandon(self) -> None:
        """See `Questions`: nobody waits for one."""
