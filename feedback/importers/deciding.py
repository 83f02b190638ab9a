"""What a rating means: desirable, undesirable, or neither."""

import operator
import re
from typing import Any

from kto_release.errors import DataError, RecipeError
from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import UNKNOWN, LeftOut, Options, Rating
from kto_release.feedback.rows import RowProblem

UP = {"up", "thumb up", "thumbs up", "thumbsup", "👍", "like", "liked", "good", "positive", "true", "yes"}
DOWN = {"down", "thumb down", "thumbs down", "thumbsdown", "👎", "dislike", "disliked", "bad", "negative", "false",
        "no"}  # fmt: skip
NEITHER = {"neutral", "none", "tie"}
COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
    "==": operator.eq,
}
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
RULE = re.compile(r"\s*(>=|<=|==|=|>|<)\s*([-+]?\d+(?:\.\d+)?)\s*")


class Decider:
    """Turns the values of one import into labels. Raises `RecipeError` where a rule can't be read."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._names: set[str] = set()
        self._zero_is_down = self._minus_is_down = False
        if (options.desirable is None) != (options.undesirable is None):
            raise RecipeError(
                "--desirable and --undesirable belong together", todo="give both; what fits neither is neutral"
            )

    def label(self, rating: Rating) -> bool:
        """True for desirable. Raises `LeftOut` where it is neither, `RowProblem` where that can't be told."""
        if self._options.by != "any" and rating.by not in (self._options.by, UNKNOWN):
            raise LeftOut(reasons.BY_JUDGE if rating.by == "judge" else "rated by a person")
        if rating.name:
            self._check_name(rating.name)
        value = rating.value
        if value is None or value == "":
            raise LeftOut(reasons.UNRATED, subject=rating.subject, time=rating.time)
        if self._options.desirable is not None and rating.kind not in {"correction", "arena", "pair"}:
            found = self._by_rule(value)
        elif isinstance(value, bool):
            found = value
        else:
            found = self._by_words(rating, value)
        if found is None:
            raise LeftOut(reasons.NEUTRAL, subject=rating.subject, time=rating.time)
        return found

    def _check_name(self, name: str) -> None:
        if self._options.score is not None:
            if name != self._options.score:
                raise LeftOut(f"another score than {self._options.score!r}")
            return
        self._names.add(name)
        if len(self._names) > 1:
            raise DataError(
                f"the export holds several scores: {', '.join(map(repr, sorted(self._names)))}",
                expected="the one that says what people want",
                todo="name it: --score NAME",
            )

    def _by_rule(self, value: Any) -> bool | None:
        rules = (self._options.desirable or "", self._options.undesirable or "")
        up, down = (_fits(rule, value) for rule in rules)
        if up and down:
            raise RowProblem(f"rating {value!r} fits --desirable and --undesirable")
        return True if up else False if down else None

    def _by_words(self, rating: Rating, value: Any) -> bool | None:
        if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
            value = float(value)  # a CSV's cells are text
        if isinstance(value, int | float) and not isinstance(value, bool):
            if rating.is_scale or value not in (0, 1, -1):
                raise RowProblem(
                    f"{rating.name or 'the rating'} is {value!r}: a number on an unknown scale",
                    "a number on an unknown scale",
                    todo="say what is what, for example --desirable '>=4' --undesirable '<=2'",
                )
            self._zero_is_down |= value == 0
            self._minus_is_down |= value == -1
            if self._zero_is_down and self._minus_is_down:
                raise RowProblem(
                    "both 0 and -1 occur: is 0 neutral or bad?", todo="say it: --desirable '>=1' --undesirable '<=-1'"
                )
            return bool(value == 1)
        word = re.sub(r"[\s_-]+", " ", str(value).strip().lower()).strip() or str(value)
        if isinstance(value, str) and str(word) in UP | DOWN | NEITHER:
            return True if word in UP else False if word in DOWN else None
        raise RowProblem(
            f"{rating.name or 'the rating'} is {value!r}: neither good nor bad by itself",
            "a rating that is neither good nor bad by itself",
            todo="say what is what, for example --desirable good --undesirable 'bad|wrong'",
        )


def _fits(rule: str, value: Any) -> bool:
    found = RULE.fullmatch(rule)
    if found is None:
        return str(value).strip().lower() in {word.strip().lower() for word in rule.split("|")}
    try:
        return bool(COMPARE[found[1]](float(value), float(found[2])))
    except (TypeError, ValueError):
        raise RowProblem(f"rating {value!r} is no number, and the rule is {rule!r}") from None
