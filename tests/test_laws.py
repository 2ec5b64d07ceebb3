"""The laws of the code base: who may import whom, how large things may grow, and what may not be written at all."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for package in ("herd", "node") for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in [*SOURCES, *TESTS]}
# Router and agent are two programs that may be of different versions, so each has its own place for what it tells.
ONLY_IN = {
    "prometheus_client": ("herd/telemetry", "node/telemetry"),
    "opentelemetry": ("herd/telemetry", "node/telemetry"),
    "sqlite3": ("herd/store",),
}
# From the bottom up: a room imports only from the rooms before it.
ROOMS = (
    "core", "wire", "settings", "fleet", "dataplane", "store", "telemetry", "recorder", "planning", "insights", "audit",
    "jobs", "security", "routes", "reference", "sim", "app", "commands", "cli",
)  # fmt: skip
BROAD_EXCEPTS_ALLOWED = {"herd/telemetry/emit.py", "herd/dataplane/serve.py"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Full dotted names of what a file imports, relative ones resolved; `from a import b` gives a.b."""
    package = module(path) if path.name == "__init__.py" else module(path).rpartition(".")[0]
    for found in ast.walk(TREES[path]):
        if isinstance(found, ast.Import):
            yield from (alias.name for alias in found.names)
        elif isinstance(found, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - found.level + 1] if found.level else []
            base = ".".join([*above, *([found.module] if found.module else [])])
            yield from (f"{base}.{alias.name}" for alias in found.names)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (found for found in ast.walk(TREES[path]) if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef))


def within(dotted: str, packages: tuple[str, ...]) -> bool:
    return any(dotted == package or dotted.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("path", [path for path in SOURCES if "herd/core" in name(path)], ids=name)
def test_the_core_imports_only_the_standard_library_and_itself(path, stdlib):
    """Pure decisions stay pure only if they cannot reach anything else."""
    foreign = [dotted for dotted in imports(path) if not within(dotted, ("herd.core", *stdlib))]
    assert not foreign


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_each_library_of_the_records_is_known_to_one_package(path):
    """`emit` is the only door to the records; who imports their libraries could go around it."""
    for library, homes in ONLY_IN.items():
        if not name(path).startswith(homes):
            found = [dotted for dotted in imports(path) if within(dotted, (library,))]
            assert not found, f"{library} belongs to {' and '.join(homes)}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_agent_and_router_meet_only_in_the_wire_contract(path):
    """An agent must be installable beside any router, and `node` is too common a name to be imported by accident."""
    if name(path).startswith("node/"):
        ours = [dotted for dotted in imports(path) if within(dotted, ("herd",))]
        assert all(within(dotted, ("herd.wire",)) for dotted in ours)
    else:
        assert not [dotted for dotted in imports(path) if within(dotted, ("node",))]


def test_no_import_goes_in_a_circle():
    """A circle is one module in several files."""
    modules = {module(path): path for path in SOURCES}
    graph = {
        here: {there for dotted in imports(path) if (there := _longest(dotted, modules)) and there != here}
        for here, path in modules.items()
    }
    # A package's __init__ is loaded with every module in it; that alone is no circle.
    while leaves := {here for here, there in graph.items() if not there & graph.keys()}:
        graph = {here: there for here, there in graph.items() if here not in leaves}
    assert not graph


def room(dotted: str) -> str | None:
    """The room of a module of the router; None for what belongs to none, such as the version."""
    package, _, rest = dotted.partition(".")
    found = rest.partition(".")[0]
    return found if package == "herd" and found in ROOMS else None


def test_every_module_of_the_router_stands_in_a_room_that_the_order_knows():
    """A room that nobody ordered is one that may import anything."""
    homeless = [name(path) for path in SOURCES if name(path).startswith("herd/") and room(module(path)) is None]
    assert homeless == ["herd/__init__.py", "herd/__main__.py"]


@pytest.mark.parametrize("path", [path for path in SOURCES if room(module(path))], ids=name)
def test_no_import_goes_up_to_a_room_that_stands_on_this_one(path):
    """Rooms that import each other are one room, and whoever changes one of them has to read both."""
    here = ROOMS.index(room(module(path)))
    up = {there for dotted in imports(path) if (there := room(dotted)) and ROOMS.index(there) > here}
    assert not up


def _longest(dotted: str, modules: dict[str, Path]) -> str | None:
    while dotted and dotted not in modules:
        dotted = dotted.rpartition(".")[0]
    return dotted or None


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_and_functions_stay_within_what_a_head_holds(path):
    """A file over 400 lines or a function over 50 had the wrong noun."""
    assert path.read_text(encoding="utf-8").count("\n") <= 400
    long = {found.name: (found.end_lineno or 0) - found.lineno + 1 for found in functions(path)}
    assert {key: lines for key, lines in long.items() if lines > 50} == {}


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name)
def test_imports_stand_at_the_top_and_nothing_is_global(path):
    """A hidden import is a hidden dependency; a global is a hidden parameter."""
    for function in functions(path):
        inside = [found for found in ast.walk(function) if isinstance(found, ast.Import | ast.ImportFrom | ast.Global)]
        assert not inside, f"{function.name} imports or declares a global inside itself"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_file_begins_with_its_law(path):
    """What a module knows, and what it does not, is read before its code."""
    assert ast.get_docstring(TREES[path])


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_broad_excepts_stand_only_where_a_reason_was_given(path):
    """Everywhere else an unexpected error must be seen."""
    caught = [found.type for found in ast.walk(TREES[path]) if isinstance(found, ast.ExceptHandler)]
    broad = [kind for kind in caught if kind is None or ast.unparse(kind) in {"Exception", "BaseException"}]
    assert len(broad) <= (name(path) in BROAD_EXCEPTS_ALLOWED)


@pytest.mark.parametrize("path", TESTS, ids=name)
def test_tests_are_sentences_with_a_reason_and_use_the_real_thing(path):
    """The list of tests is read as the operator's manual; mocks and sleeps would make it fiction."""
    for function in functions(path):
        if function.name.startswith("test_"):
            assert function.name.count("_") >= 3, f"{function.name} is no sentence"
            assert ast.get_docstring(function), f"{function.name} does not say why it matters"
    forbidden = ("unittest.mock", "pytest_mock")
    assert not [dotted for dotted in imports(path) if within(dotted, forbidden)]
    calls = [ast.unparse(found.func) for found in ast.walk(TREES[path]) if isinstance(found, ast.Call)]
    assert "time.sleep" not in calls


def test_the_project_names_no_machine_and_needs_nothing_beside_itself():
    """Whoever clones it has the project alone."""
    words = ("/" + "root/", "/" + "work/", "../" + "shared")
    prose = [*ROOT.glob("*.md"), *ROOT.glob("*.toml"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"]
    texts = [*SOURCES, *TESTS, *prose]
    found = [(name(path), word) for path in texts for word in words if word in path.read_text(encoding="utf-8")]
    assert not found
