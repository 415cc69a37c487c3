"""The rules of the house that a program can check: layers, packaging, names, sizes, state."""

import ast
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
MAX_PUBLIC_NAMES = 22
MUTATORS = {"append", "add", "update", "setdefault", "pop", "popitem", "clear", "extend", "insert", "remove", "discard"}

FILES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_file = pytest.mark.parametrize("path", FILES, ids=name_of)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (level, module) of every import, `import a.b` as (0, "a.b")."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield node.level, module
            if not module or module == "exeunt":
                yield from ((node.level, f"{module}.{alias.name}".lstrip(".")) for alias in node.names)


@each_file
def test_a_layer_imports_only_layers_below_it(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    below = LAYERS[: LAYERS.index(own)]
    for level, module in imports(path):
        if level == 0 and module.startswith("exeunt."):
            assert module.split(".")[1] in below, f"{own} imports {module}"


@each_file
def test_a_layer_is_never_imported_by_its_directory(path: Path) -> None:
    for level, module in imports(path):
        assert level > 0 or module.split(".")[0] not in LAYERS, f"import {module}: write exeunt.{module}"


@each_file
def test_a_relative_import_stays_in_its_layer(path: Path) -> None:
    depth = len(path.relative_to(ROOT).parts) - 1
    assert all(level <= depth for level, _ in imports(path))


@each_file
def test_a_module_is_named_for_what_it_holds(path: Path) -> None:
    assert not FORBIDDEN_NAMES & {path.stem, *path.relative_to(ROOT).parts}


@each_file
def test_a_file_is_short_and_so_are_its_functions(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, node.name


@each_file
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@each_file
def test_a_module_keeps_no_state(path: Path) -> None:
    tree = ast.parse(path.read_text())
    mutable = {
        target.id
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, (ast.Dict, ast.List, ast.Set))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    assert not mutable & set(mutated_names(tree))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]


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


def test_the_distribution_lists_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        "exeunt." + ".".join(path.parent.relative_to(ROOT).parts) for path in FILES if path.name == "__init__.py"
    }
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
