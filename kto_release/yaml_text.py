"""YAML that people wrote, read strictly: no key twice, no nesting without end, no few lines that stand for millions."""

from typing import Any

import yaml

DEEPEST = 50
"""Levels; a recipe has five."""
MOST_VALUES = 100_000
"""Values after aliases are written out."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which takes the last of two equal keys, and lets aliases of aliases grow without end."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One value and all below it."""
        if self.depth > DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"nested more than {DEEPEST} levels deep", self._mark())
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _mark(self) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's parser is not typed
        return event.start_mark if event is not None else None

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A mapping; its keys are compared before `<<` brings in others, which they may replace."""
        seen: set[Any] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str) -> Any:
    """What a YAML text holds. Raises `yaml.YAMLError`, with a mark where the place is known."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except (ValueError, RecursionError) as error:  # a date that is none, for example; a value that holds itself
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()


def _count(node: Any, known: dict[int, int]) -> int:
    """Values below a node, aliases written out."""
    if id(node) in known:
        if known[id(node)] < 0:
            raise yaml.YAMLError("a value that holds itself")
        return known[id(node)]
    known[id(node)] = -1
    below = node.value if isinstance(node, yaml.CollectionNode) else []
    parts = [part for pair in below for part in (pair if isinstance(pair, tuple) else (pair,))]
    total = 1 + sum(_count(part, known) for part in parts)
    if total > MOST_VALUES:
        raise yaml.YAMLError(f"aliases that stand for more than {MOST_VALUES:,} values")
    known[id(node)] = total
    return total
