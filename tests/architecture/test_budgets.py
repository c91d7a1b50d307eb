"""Sizes, docstrings and names stay within what a reader can hold."""

import ast
import re

import pytest

from tests.architecture.sources import (
    Definition,
    Source,
    count_code_lines,
    public_definitions,
    sources,
)

MODULE_LINES = 250
FUNCTION_LINES = 40
FUNCTION_LINES_P90 = 22
BANNED = frozenset(
    {
        *("manager", "handler", "processor", "helper", "helpers", "util", "utils"),
        *("common", "base", "misc", "data", "info"),
    }
)
BANNED_VERBS = ("do_", "process_", "handle_")
ALLOWED = {
    *("data_received", "pipe_data_received", "process_exited"),  # asyncio's names
    "do_handshake",  # ssl's name
    "_data_bytes",  # what RLIMIT_DATA counts
    "add_info",  # Prometheus' metric type
    "StepBase",  # fields that all steps share
}


def test_longest_module() -> None:
    """No module has more than 250 code lines."""
    long = {s.name: len(s.code_lines) for s in sources()}
    assert {name: n for name, n in long.items() if n > MODULE_LINES} == {}


def test_longest_function() -> None:
    """No function has more than 40 code lines."""
    sizes = {name: lines for s in sources() for name, _, lines in s.functions()}
    assert {name: n for name, n in sizes.items() if n > FUNCTION_LINES} == {}


def test_nine_of_ten_functions_are_short() -> None:
    """Nine of ten functions have at most 22 code lines."""
    sizes = sorted(lines for s in sources() for _, _, lines in s.functions())
    assert sizes[len(sizes) * 9 // 10] <= FUNCTION_LINES_P90


def test_modules_say_what_they_are() -> None:
    """Every module of the package begins with a docstring."""
    assert [s.name for s in sources() if not ast.get_docstring(s.tree)] == []


def test_public_definitions_say_what_they_do() -> None:
    """Every public class, function and method has a docstring."""
    bare = [
        name
        for source in sources()
        for name, node in public_definitions(source)
        if not ast.get_docstring(node)
    ]
    assert bare == []


def test_tests_say_what_they_claim() -> None:
    """Every test has a docstring that states the fact."""
    bare = [
        name
        for source in sources("tests")
        for name, node, _ in source.functions()
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert bare == []


@pytest.mark.parametrize("folder", ["agent", "tests", "benchmarks"])
def test_nothing_is_left_to_do(folder: str) -> None:
    """No file holds a note to finish it later."""
    note = re.compile(r"\b(TO" + "DO|FIX" + "ME|XX" + r"X)\b")
    assert [s.name for s in sources(folder) if note.search(s.text)] == []


@pytest.mark.parametrize("folder", ["agent", "tests", "benchmarks"])
def test_ignored_types_have_a_code_and_a_reason(folder: str) -> None:
    """Every ignored type error names its code and says why."""
    good = re.compile(r"#\s*type:\s*ignore\[[\w, -]+\]\s+#\s*\S+")
    lines = [
        f"{source.name}: {line.strip()}"
        for source in sources(folder)
        for line in source.text.splitlines()
        if re.search(r"#\s*type:\s*ignore\b", line) and not good.search(line)
    ]
    assert [line for line in lines if "re.search" not in line] == []


def test_names_say_something() -> None:
    """No module, class or function has a name that fits anything."""
    vague = [
        f"{where} {name}"
        for source in sources()
        for where, name in _names(source)
        if name not in ALLOWED
        and (BANNED & set(_words(name)) or name.lstrip("_").startswith(BANNED_VERBS))
    ]
    assert vague == []


def test_code_lines_leave_out_comments_and_docstrings() -> None:
    """Blank lines, comments and docstrings are not code; strings over lines are."""
    text = (
        '"""Doc."""\n\n# why\ndef f():\n    """Doc\n    it."""\n    return """a\nb"""\n'
    )
    assert count_code_lines(text, ast.parse(text)) == {4, 7, 8}


def _names(source: Source) -> list[tuple[str, str]]:
    """Return the names that a file defines, its own first."""
    defined = [
        (f"{source.name}:{node.lineno}", node.name)
        for node in ast.walk(source.tree)
        if isinstance(node, Definition)
    ]
    return [(source.name, source.path.stem), *defined]


def _words(name: str) -> list[str]:
    """Split snake_case and CamelCase into lower-case words."""
    return [
        word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)
    ]
