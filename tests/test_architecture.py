"""The rules of the house that a program can check: layers, packaging, names, sizes, state."""

import ast
import functools
import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("runtime", "actors", "clients")
"""From the bottom: each may use those before it."""
FORBIDDEN_NAMES = {"utils", "helpers", "common", "base", "misc", "constants"}
MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 70
MAX_PUBLIC_NAMES = 24
MUTATORS = {"append", "add", "update", "setdefault", "pop", "popitem", "clear", "extend", "insert", "remove", "discard"}

FILES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (level, module) of every import; `from exeunt import runtime` as (0, "exeunt.runtime") too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""
            if node.module == "exeunt":
                yield from ((node.level, f"exeunt.{alias.name}") for alias in node.names)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the name and length of every function: of what it does, without its signature and docstring."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body:
                yield f"{name_of(path)}: {node.name}", (node.end_lineno or 0) - body[0].lineno + 1


def test_a_layer_imports_only_layers_below_it() -> None:
    wrong = [
        f"{name_of(path)} imports {module}"
        for path in FILES
        for level, module in imports(path)
        if level == 0 and module.startswith("exeunt.")
        if module.split(".")[1] not in LAYERS[: LAYERS.index(layer_of(path))]
    ]
    assert wrong == []


def test_a_layer_is_never_imported_by_its_directory() -> None:
    wrong = [
        f"{name_of(path)} imports {module}"
        for path in FILES
        for level, module in imports(path)
        if level == 0 and module.split(".")[0] in LAYERS
    ]
    assert wrong == []


def test_a_relative_import_stays_in_its_layer() -> None:
    wrong = [
        name_of(path) for path in FILES for level, _ in imports(path) if level >= len(path.relative_to(ROOT).parts)
    ]
    assert wrong == []


def test_a_module_is_named_for_what_it_holds() -> None:
    wrong = [name_of(path) for path in FILES if FORBIDDEN_NAMES & {path.stem, *path.relative_to(ROOT).parts}]
    assert wrong == []


def test_files_are_short() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    lengths = {name: lines for path in FILES for name, lines in functions(path)}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}


def test_a_module_says_what_it_is() -> None:
    assert [name_of(path) for path in FILES if not ast.get_docstring(tree_of(path))] == []


def test_a_module_keeps_no_state() -> None:
    wrong = [f"{name_of(path)}: {name}" for path in FILES for name in state_of(tree_of(path))]
    assert wrong == []


def state_of(tree: ast.Module) -> Iterator[str]:
    """Yield module-level containers that some code of the module changes, and every `global`."""
    containers = {
        target.id
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, (ast.Dict, ast.List, ast.Set))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    yield from containers & set(mutated_names(tree))
    yield from (name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names)


def mutated_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
            target: ast.expr = node.value
        elif isinstance(node, ast.Attribute) and node.attr in MUTATORS:
            target = node.value
        else:
            continue
        if isinstance(target, ast.Name):
            yield target.id


WAKING = {"call_later", "call_at", "add_reader", "add_writer"}


@pytest.mark.parametrize("layer", ["runtime", "actors"])
def test_whatever_wakes_an_event_loop_has_a_name(layer: str) -> None:
    """Descriptors and timers are asked for by the functions of `runtime/wakeups.py`, which count them by cause."""
    asked = [
        f"{name_of(path)}:{node.lineno}: {node.func.attr}"
        for path in FILES
        if layer_of(path) == layer and name_of(path) != "runtime/wakeups.py" and "testing" not in path.parts
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WAKING
    ]
    assert asked == []


def test_the_distribution_lists_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {"exeunt." + ".".join(path.parent.relative_to(ROOT).parts) for path in FILES if path.name == "__init__.py"}
    assert set(listed) == found
    assert len(listed) == len(set(listed))


def test_every_directory_with_code_is_a_package() -> None:
    assert all((path.parent / "__init__.py").exists() for path in FILES)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_has_few_public_names_and_all_exist(layer: str) -> None:
    module = importlib.import_module(f"exeunt.{layer}")
    names: list[str] = getattr(module, "__all__", [])
    assert len(names) <= MAX_PUBLIC_NAMES
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(module, name)] == []
