"""The core neither waits nor touches anything: what import contracts cannot see."""

import ast

import pytest

from tests.architecture.sources import Source, sources

PURE = ("agent/core/", "agent/settings.py", "agent/errors.py")
WAITING = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
EFFECTS = frozenset(
    {"open", "print", "input", "exec", "eval", "compile", "breakpoint", "__import__"}
)


def pure_sources() -> list[Source]:
    """Return the files that hold decisions only."""
    return [source for source in sources() if source.name.startswith(PURE)]


def find_effects(tree: ast.AST) -> list[str]:
    """Return what in a file waits, or calls a builtin that touches the world."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, WAITING):
            found.append(f"{node.lineno}: waits")
        elif isinstance(node, ast.Global):
            found.append(f"{node.lineno}: changes a global")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called = node.func.id
            found += [f"{node.lineno}: calls {called}"] * (called in EFFECTS)
    return found


def test_core_has_no_effects() -> None:
    """Nothing in the core waits, opens, prints or changes a global."""
    found = {source.name: find_effects(source.tree) for source in pure_sources()}
    assert {name: effects for name, effects in found.items() if effects} == {}


@pytest.mark.parametrize(
    ("code", "effect"),
    [
        ("async def f(): pass", "1: waits"),
        ("open('x')", "1: calls open"),
        ("def f():\n    global x\n    x = 1", "2: changes a global"),
    ],
)
def test_effects_are_found(code: str, effect: str) -> None:
    """The search itself finds what it is there for."""
    assert find_effects(ast.parse(code)) == [effect]


def test_core_is_looked_at() -> None:
    """The search covers the settings, the errors and the whole core."""
    names = {source.name for source in pure_sources()}
    assert {"agent/settings.py", "agent/errors.py", "agent/core/reasons.py"} <= names
