"""A verdict in a judge's own words: the letter in whatever dress, or no verdict at all.

Judges write `m`, **Output (M)**, [[A]], "Answer: B", {"better": "m"}, a sentence, or pages with a last line. What is
read has to say one letter and no other: where marks, lines or sentences say different ones, or nothing says any, the
answer is unreadable. It is never guessed from which letter occurs more often.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence

from kto_release.judges.prompt import Letters

SAYING = frozenset(
    re.findall(
        r"\w+",
        """a an the so thus therefore hence overall in conclusion final finally my verdict answer answers choice
        decision judgement judgment judge evaluation result winner preference preferred prefer pick picked choose
        chose chosen select selected would say go with i d is was be it its one better best output outputs model
        response responses assistant option candidate text letter identifier token of from between by for human
        ranked rank first place superior stronger wins won win which that to clearly slightly much and am going
        based on above this these are far""",
    )
)
"""Words beside the letter of which a line that says it may be made: none of them can turn its meaning round."""
KEYS = ("better", "winner", "verdict", "best", "preferred", "preference", "choice", "answer", "label", "decision")
"""Where a JSON answer has its verdict."""
MARKED = re.compile(
    r"\[\[(?P<brackets>[^\[\]\n]{1,40})\]\]|\\boxed\{(?:\\text\{)?(?P<boxed>[^{}\n]{1,40})\}"
    r"|<(?P<tag>answer|verdict|winner|choice|decision|result)>\s*(?P<tagged>[^<>\n]{1,40}?)\s*</(?P=tag)>",
    re.IGNORECASE,
)
ARENA = re.compile(r"(?P<left>\S+?)\s*(?P<sign>>{1,2}|<{1,2}|=)\s*(?P<right>\S+)")
LABELLED = re.compile(
    r"^\W*(?:(?:my|the|so|final|overall) )*(?:verdict|answer|winner|choice|decision|judge?ment|preference"
    r"|better(?: one)?|best|conclusion|result|better (?:output|response|answer|model))\W*(?: is)?\W*:+\W*(?P<said>.+)$",
    re.IGNORECASE,
)
SHOWN = 60
"""Characters of an answer in a message."""
SENTENCES = re.compile(r"(?<=[.!?;])\s+|\n+")
NOT = re.compile(
    r"\b(?:not|never|neither|nor|worse|worst|less|weaker|inferior|unlike|if|whether|however|but)\b|n't", re.IGNORECASE
)
GOOD = r"(?:better|best|superior|stronger|preferable|preferred|the winner|ahead)"
NOUN = r"(?:(?:the|output|model|response|answer|assistant|option|candidate|text) ?)*"


def read_letter(text: str, letters: Letters, *, cut: bool = False) -> str | None:
    """The letter that an answer gives as its verdict; null where it gives none, or more than one.

    `cut`: the answer ended at a limit, so what a verdict would have come to is not known, unless it opens with one.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    opening, last = _line(lines[0], letters), _line(lines[-1], letters)
    if any(_line(line, letters) not in (None, opening) for line in lines[1:-1]):
        opening = None  # a heading, as another one shows
    if cut:
        return opening if len(_tokens(lines[0])) == 1 else None
    for found in (_json(text, letters), _marked(text, letters)):
        if found:
            return found[0] if len(set(found)) == 1 else None
    said = [letter for letter in (opening, last) if letter]
    if said:
        return said[0] if len(set(said)) == 1 else None
    claims = set(_claims(text, letters))
    return claims.pop() if len(claims) == 1 else None


def shortened(text: str) -> str:
    """The beginning and the end of an answer, as a message can show it."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN // 2]}…{line[-SHOWN // 2 :]}"


def _json(text: str, letters: Letters) -> list[str]:
    """The verdicts of the JSON objects in an answer."""
    decoder, found, place = json.JSONDecoder(), list[str](), text.find("{")
    while place >= 0:
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            found += _of_object(value, letters)
        place = text.find("{", end)
    return found


def _of_object(value: object, letters: Letters) -> list[str]:
    if not isinstance(value, dict):
        return []
    if "rank" in value:  # a ranking, as in other prompts of AlpacaEval: the model of rank 1
        return [*filter(None, [_dressed(str(value.get("model")), letters)])] if value["rank"] in (1, "1") else []
    plain = {str(key).strip().lower(): item for key, item in value.items() if isinstance(item, str | int)}
    for name in KEYS:
        named = [item for key, item in plain.items() if name in key]
        if named:
            return [letter for item in named if (letter := _dressed(str(item), letters))]
    return [letter for item in plain.values() if (letter := _dressed(str(item), letters))]


def _marked(text: str, letters: Letters) -> list[str]:
    """What stands in [[ ]], in a box or a tag, or after a label such as "Final verdict:"; the last, if any differ.

    An answer that first repeats what it was told to write ends with what it says.
    """
    found: list[tuple[int, str]] = []
    for match in MARKED.finditer(text):
        inside = match["brackets"] or match["boxed"] or match["tagged"]
        letter = _arena(inside, letters) or _dressed(inside, letters)
        if letter:
            found.append((match.start(), letter))
    place = 0
    for line in text.splitlines(keepends=True):
        label = LABELLED.match(line.strip().replace("*", "").replace("#", ""))
        letter = _line(label["said"], letters) if label else None
        if letter:
            found.append((place, letter))
        place += len(line)
    if not found:
        return []
    place, letter = max(found)
    begin = text.rfind("\n", 0, place) + 1
    beside = {other for start, other in found if start >= begin}
    ends = not text[place:].strip().partition("\n")[2].strip()
    return [letter] if ends and beside == {letter} else [letter for _, letter in found]


def _arena(inside: str, letters: Letters) -> str | None:
    """A>B, B>>A, A=B."""
    match = ARENA.fullmatch(inside.strip())
    if match is None:
        return None
    left, right = _exactly(match["left"], letters), _exactly(match["right"], letters)
    if {left, right} != {letters.first, letters.second}:
        return None
    if match["sign"] == "=":
        return letters.tie
    return left if match["sign"].startswith(">") else right


def _line(line: str, letters: Letters) -> str | None:
    """The letter of a line that holds it and nothing but words of saying so."""
    tokens = _tokens(line)
    if len(tokens) == 1:
        return _exactly(tokens[0], letters)
    read = [(token, _in_line(token, line, letters)) for token in tokens]
    said = {letter for _, letter in read if letter}
    if len(said) != 1 or any(letter is None and token.lower() not in SAYING for token, letter in read):
        return None
    return said.pop()


def _in_line(word: str, line: str, letters: Letters) -> str | None:
    """The letter that a word of a line is; "a" in a sentence is none, unless it is dressed as one."""
    if word in letters.all:
        article = word == "A" and re.match(r"\W*A [a-z]+", line) and not re.match(r"\W*A (?:is|was|wins)\b", line)
        return None if article else word
    dressed = re.search(rf"[\[(\"'`*]{re.escape(word)}[\])\"'`*]", line)
    return _exactly(word, letters) if dressed or word.lower() not in SAYING else None


def _dressed(text: str, letters: Letters) -> str | None:
    return _exactly(text.strip(), letters) or _line(text, letters)


def _claims(text: str, letters: Letters) -> Iterator[str]:
    """The letters that sentences call better; a sentence with a "not" or a "but" in it says nothing."""
    for sentence in SENTENCES.split(text):
        if not sentence.strip() or NOT.search(sentence):
            continue
        letter = _line(sentence, letters)
        if letter:
            yield letter
            continue
        plain = " ".join(_tokens(sentence))
        for one in letters.all[:2]:
            if any(re.search(pattern, plain) for pattern in _claiming(one)):
                yield one


def _claiming(letter: str) -> Iterable[str]:
    mark = re.escape(letter)
    yield rf"\b{mark} (?i:(?:is|was|seems|appears|would be)(?: \w+){{0,2}} {GOOD})\b"
    yield rf"\b{mark} (?i:wins|outperforms|beats)\b"
    yield rf"(?i:\b(?:prefer|choose|pick|select|favou?r|go with|vote for) {NOUN}){mark}(?!\w)"
    yield rf"(?i:\b{GOOD}(?: one)? {NOUN}(?:is|was|would be) {NOUN}){mark}(?!\w)"


def _tokens(text: str) -> Sequence[str]:
    """Words, without what they are dressed in; "I'm" is one word, and so is "it's"."""
    words = re.findall(r"\w+(?:['’\-]\w+)*", text)
    return [word.strip("_") for word in words if word.strip("_")]


def _exactly(text: str, letters: Letters) -> str | None:
    """The letter that a text is, without what it is dressed in; in any case where no two letters differ by it alone."""
    bare = text.strip().strip("\"'`*_()[]{}<>.,:;!#$“”‘’ ")
    if bare in letters.all:
        return bare
    folded = {letter.casefold(): letter for letter in letters.all}
    return folded.get(bare.casefold()) if len(folded) == len(letters.all) else None
