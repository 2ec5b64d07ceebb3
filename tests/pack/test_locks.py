"""What the image is made of: pinned, whole, and the same as what everybody develops and tests with."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import herd
from herd import wire
from tests.pack.contents import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WANTED = {
    "requirements.lock": PROJECT["project"]["dependencies"],
    "requirements-build.lock": PROJECT["build-system"]["requires"],
}
PIN = re.compile(
    r"^(?P<name>[a-z0-9.-]+)==(?P<version>[^ ;]+)(?: ; (?P<marker>[^\\]+))? \\\n(?P<hashes>(?:    --hash.+\n?)+)", re.M
)


def pins(name):
    """The pins of a lock file: version, marker and hashes by name."""
    found = PIN.finditer((ROOT / name).read_text())
    return {
        each["name"]: (
            each["version"],
            (each["marker"] or "").strip(),
            frozenset(re.findall(r"sha256:\w+", each["hashes"])),
        )
        for each in found
    }


def needed(requirements):
    """The names that these requirements need on this machine, and what those need in turn."""
    open_ends, seen = [(Requirement(each), frozenset()) for each in requirements], set()
    while open_ends:
        requirement, extras = open_ends.pop()
        if requirement.marker and not any(requirement.marker.evaluate({"extra": each}) for each in extras or {""}):
            continue
        name = canonicalize_name(requirement.name)
        if (name, extras := frozenset(requirement.extras)) not in seen:
            seen.add((name, extras))
            try:
                open_ends += [(Requirement(each), extras) for each in requires(name) or ()]
            except PackageNotFoundError:
                pytest.skip(f"{name} is not installed here, so what it needs is not known")
    return {name for name, _ in seen}


@pytest.mark.parametrize("lock", WANTED)
def test_the_image_s_lock_holds_all_that_is_needed_and_nothing_else(lock):
    """What is missing would be refused by `--require-hashes`; what is too much is one more thing to be patched."""
    here = {
        name
        for name, (_, marker, _) in pins(lock).items()
        if not marker or Requirement(f"x ; {marker}").marker.evaluate()
    }
    assert needed(WANTED[lock]) == here, "run `make lock`"


@pytest.mark.parametrize("lock", WANTED)
def test_the_image_s_pins_are_those_that_the_tests_run_with(lock):
    """Otherwise the image holds what nobody has tried."""
    tested = pins("requirements-dev.lock")
    assert {name: pin for name, pin in pins(lock).items() if tested[name] != pin} == {}, "run `make lock`"


@pytest.mark.parametrize("lock", WANTED)
def test_the_image_s_pins_keep_to_the_project_s_bounds(lock):
    """A bound that was moved in pyproject.toml and not in the lock."""
    pinned = pins(lock)
    for requirement in map(Requirement, WANTED[lock]):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)][0]), "run `make lock`"


def test_the_image_installs_what_is_pinned_and_fetches_nothing_else():
    """One `pip install` without hashes brings in whatever is newest on the day of the build."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    installs = [step for step in re.split(r"&&|\n", text) if "pip install" in step]
    assert len(installs) == 3
    for step in installs:
        assert "--require-hashes -r requirements" in step or "--no-deps dist/" in step, step
    assert {name for name in WANTED if name in text} == set(WANTED)


def test_the_image_leaves_symbols_and_the_tools_of_its_build_behind():
    """Symbols are a quarter of what is installed, and the image is to stay under 200 MB."""
    build, image = re.split(r"^FROM .+$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    assert "strip --strip-unneeded" in build
    assert build.index("-r requirements.lock") < build.index("strip --strip-unneeded")
    assert "apt-get" not in image


def test_the_image_is_compiled_when_it_is_built():
    """Its containers may not write, so each start would compile all of it again: ten seconds on a small machine."""
    text = (ROOT / "Dockerfile").read_text()
    assert "-m compileall" in text
    assert text.index("__pycache__") < text.index("-m compileall")


def test_no_instruction_installs_by_a_name_that_is_somebody_elses():
    """A public index has another product under ours, with a higher version: until ours is there, use a checkout."""
    places = [
        path for folder in ("herd", "node", "docs", "packaging", "scripts") for path in (ROOT / folder).rglob("*")
    ]
    texts = [*places, *ROOT.glob("*.md"), *ROOT.glob("Dockerfile"), *ROOT.glob("*.yml"), ROOT / "Makefile"]
    named = re.compile(r"\b(pip|pipx|uv|uvx)\b[^\n`]*\sollama-herd\b")
    kinds = {".md", ".py", ".js", ".html", ".sh", ".service", ".plist", ".yml", ""}
    read = [path for path in texts if path.is_file() and path.suffix in kinds]
    assert [path.name for path in read if named.search(path.read_text(encoding="utf-8", errors="replace"))] == []


def test_agent_and_router_tell_their_version_from_one_place():
    """What is installed under the name may be another product: its version says nothing of this one."""
    assert herd.__version__ == wire.RELEASE
    sources = [path for folder in ("herd", "node") for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in sources if "metadata" in path.read_text() and "importlib" in path.read_text()] == []
