"""The house: which room may know which, and that nothing public stands in a room that nobody enters."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("kto_release", "templates", "feedback", "engines", "judges", "train", "evaluate", "release")
"""Data flows down this list: a room may import those before it, never one behind it."""
DATA = ("model_cards", "recipes")
"""Templates of the card, citations and recipes: they import nothing but what all share."""
ON_TOP = {"kto_release/cli.py", "kto_release/demo.py"}
"""The command line: it alone knows every room."""
ENTRIES = {
    "kto_release.cli.main": "the console script of pyproject.toml",
    "kto_release.schema.json_schema": "`make docs`",
    "kto_release.schema.markdown": "`make docs`",
}
"""Public names that are used from outside of the package."""


@cache
def modules() -> dict[str, Path]:
    """Path of every module of the package, by the name that it is imported under."""
    found = {}
    for room in (*ROOMS, *DATA):
        for path in (ROOT / room).rglob("*.py"):
            parts = [*path.relative_to(ROOT).with_suffix("").parts]
            parts = parts if room == "kto_release" else ["kto_release", *parts]
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[str, ast.stmt, bool]]:
    """(module of ours, statement, whether it stands in a function) for each import; those for types only left out."""
    module = tree_of(path)
    inside = {
        id(node)
        for function in ast.walk(module)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    typing_only = {
        id(node)
        for block in ast.walk(module)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(module):
        if id(node) in typing_only:
            continue
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules() else node.module for name in inner]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in dict.fromkeys(names):
            if name in modules():
                yield name, node, id(node) in inside


def room_of(module: str) -> str:
    """The top folder that a module stands in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in (*ROOMS, *DATA) else "kto_release"


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_data_flows_down_and_no_import_runs_back_up() -> None:
    """Also in functions. Only the command line stands above; whoever needs data imports it."""
    wrong = []
    for module, path in modules().items():
        if relative(path) in ON_TOP:
            continue
        here = room_of(module)
        for name, node, _ in imports(path):
            there = room_of(name)
            if here in DATA:
                known = there in (here, "kto_release")
            else:
                known = there in DATA or ROOMS.index(there) <= ROOMS.index(here)
            if not known:
                wrong.append(f"{relative(path)}:{node.lineno} imports {name}")
    assert wrong == []


def test_no_circle_anywhere() -> None:
    """Imports in functions counted too: a circle that is broken by hiding an import is one."""
    edges = {
        module: {name for name, _, _ in imports(path) if name != module and not module.startswith(f"{name}.")}
        for module, path in modules().items()
        if relative(path) not in ON_TOP
    }
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        if module in way:
            pytest.fail(" -> ".join((*way[way.index(module) :], module)))
        if module not in done:
            for name in sorted(edges.get(module, ())):
                walk(name, (*way, module))
            done.add(module)

    for module in sorted(edges):
        walk(module, ())


def test_an_import_of_ours_in_a_function_says_why() -> None:
    """A comment on its line or above it (or above the first of several); the command line's are its own reason."""
    wrong = []
    for path in modules().values():
        if relative(path) in ON_TOP:
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        for name, node, local in imports(path):
            above = node.lineno - 2
            while not lines[above].strip() or lines[above].strip().startswith(("from ", "import ")):
                above -= 1
            if local and "#" not in lines[node.lineno - 1] and not lines[above].strip().startswith("#"):
                wrong.append(f"{relative(path)}:{node.lineno} imports {name}")
    assert wrong == []


def test_the_readme_lists_every_file() -> None:
    """Its tree has a line for each file of code, in the folder where it stands."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## What is where")[1].split("```")[1]
    listed, folders = set(), list[str]()
    for line in text.strip().splitlines():
        name, depth = line.split()[0], (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:depth], name.removesuffix("/")]
        if name.endswith(".py"):
            listed.add("/".join(folders))
    assert listed == {
        relative(path) for path in modules().values() if path.name != "__init__.py" and room_of_path(path)
    }


def room_of_path(path: Path) -> bool:
    """Whether a file stands in a room of code."""
    return path.relative_to(ROOT).parts[0] in ROOMS


def public(module: ast.Module) -> Iterator[str]:
    """Names of the functions and classes that a module offers; what a decorator takes, the decorator calls."""
    for node in module.body:
        is_offered = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if is_offered and not node.name.startswith("_") and not node.decorator_list:
            yield node.name


@cache
def bindings(module: str) -> dict[str, set[tuple[str, str | None]]]:
    """What the names imported by a module mean: (module, name in it), or (module, None) for a module itself.

    One name may mean several things, in one function each.
    """
    found: dict[str, set[tuple[str, str | None]]] = {}
    for node in ast.walk(tree_of(modules()[module])):
        if isinstance(node, ast.ImportFrom) and node.module in modules():
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                target = (inner, None) if inner in modules() else (node.module, alias.name)
                found.setdefault(alias.asname or alias.name, set()).add(target)
    return found


def origins(module: str, name: str) -> Iterator[tuple[str, str]]:
    """Where a name comes from, through packages that offer what their files hold."""
    yield module, name
    for there, known_as in bindings(module).get(name, ()):
        if known_as is not None and there != module:
            yield from origins(there, known_as)


def uses(module: str) -> Iterator[tuple[str, str]]:
    """(module, name) of everything of ours that a module's code, annotations included, speaks of."""
    for node in ast.walk(tree_of(modules()[module])):
        if isinstance(node, ast.Name):
            yield from origins(module, node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            yield from origins(module, node.value)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            for there, known_as in bindings(module).get(node.value.id, ()):
                if known_as is None:
                    yield from origins(there, node.attr)


def test_everything_public_has_a_caller_in_the_package() -> None:
    """A guard that only its test calls guards nothing."""
    used = {use for module in modules() for use in uses(module)}
    unused = [
        f"{module}.{name}"
        for module, path in modules().items()
        for name in public(tree_of(path))
        if (module, name) not in used and f"{module}.{name}" not in ENTRIES
    ]
    assert unused == []
