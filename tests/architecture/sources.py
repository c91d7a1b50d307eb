"""Our own source files, parsed, and how their sizes are counted.

Code lines are lines with at least one token that is neither comment nor docstring, as
h11, python-tuf and stamina were measured for the budgets.
"""

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef
NOT_CODE = frozenset(
    {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
)


@dataclass(frozen=True)
class Source:
    """One parsed file."""

    path: Path
    text: str
    tree: ast.Module
    code_lines: frozenset[int]

    @property
    def name(self) -> str:
        """The path inside the repository."""
        return str(self.path.relative_to(REPOSITORY))

    def functions(self) -> Iterator[tuple[str, Function, int]]:
        """Yield (name, node, code lines) of every function."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield f"{self.name}:{node.lineno} {node.name}", node, self._lines(node)

    def _lines(self, node: Function) -> int:
        """Count the code lines from ``def`` to the end."""
        last = node.end_lineno or node.lineno
        return sum(node.lineno <= line <= last for line in self.code_lines)


@cache
def sources(folder: str = "agent") -> tuple[Source, ...]:
    """Return every Python file below a folder of the repository."""
    return tuple(parse(path) for path in sorted((REPOSITORY / folder).rglob("*.py")))


def parse(path: Path) -> Source:
    """Parse one file."""
    text = path.read_text()
    tree = ast.parse(text)
    return Source(path, text, tree, frozenset(count_code_lines(text, tree)))


def count_code_lines(text: str, tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        lines.difference_update(_docstring_lines(node))
    return lines


def _docstring_lines(node: ast.AST) -> range:
    """Return the lines of a definition's docstring."""
    if not isinstance(node, ast.Module | Definition) or not node.body:
        return range(0)
    first = node.body[0]
    if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
        return range(0)
    if not isinstance(first.value.value, str):
        return range(0)
    return range(first.lineno, (first.end_lineno or first.lineno) + 1)


def public_definitions(source: Source) -> Iterator[tuple[str, Definition]]:
    """Yield the public classes, functions and methods of a file."""
    yield from _public(source.tree, source.name)


def _public(
    node: ast.Module | ast.ClassDef, where: str
) -> Iterator[tuple[str, Definition]]:
    """Yield public definitions directly in a module or class, then those in classes."""
    for child in node.body:
        if isinstance(child, Definition) and not child.name.startswith("_"):
            name = f"{where}:{child.lineno} {child.name}"
            yield name, child
            if isinstance(child, ast.ClassDef):
                yield from _public(child, where)
