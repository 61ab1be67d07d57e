"""pyproject.toml, constraints.txt and environment.yml describe one environment: the running one."""

import importlib.metadata
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


# Too large to install unasked; pinned all the same.
ON_REQUEST = ["spark"]


def declared_dependencies(without=()):
    extras = PROJECT["optional-dependencies"].items()
    groups = [PROJECT["dependencies"], *(group for name, group in extras if name not in without)]
    requirements = (Requirement(line) for group in groups for line in group)
    return [found for found in requirements if canonicalize_name(found.name) != PROJECT["name"]]


def pins(lines):
    """Read name and version of every line `name==version`."""
    found = []
    for line in lines:
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{line!r} is not pinned with =="
        found.append((canonicalize_name(requirement.name), Version(specifier.version)))
    return found


def read_constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return pins(line for line in lines if line and not line.startswith("#"))


def read_conda_environment():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict)]
    options = [line for line in pip if line.startswith("-")]
    return content, options, pins(line for line in pip if not line.startswith("-"))


CONSTRAINTS = dict(read_constraints())


def test_every_package_has_one_pin():
    counts = Counter(name for name, _ in read_constraints())
    assert not [name for name, count in counts.items() if count > 1]


def test_pins_are_public_versions():
    # A local version such as 2.13.0+cpu exists for one platform only.
    assert not [name for name, version in CONSTRAINTS.items() if version.local]


@pytest.mark.parametrize("requirement", declared_dependencies(), ids=str)
def test_pin_satisfies_pyproject(requirement):
    name = canonicalize_name(requirement.name)
    assert name in CONSTRAINTS, f"constraints.txt has no pin for {requirement}"
    assert CONSTRAINTS[name] in requirement.specifier


def test_conda_environment_has_the_same_pins():
    _, _, conda = read_conda_environment()
    asked = declared_dependencies(without=ON_REQUEST)
    declared = {canonicalize_name(requirement.name) for requirement in asked}
    assert sorted(name for name, _ in conda) == sorted(declared)
    assert dict(conda) == {name: CONSTRAINTS[name] for name in declared}


def test_conda_environment_takes_the_rest_from_the_constraints():
    content, options, _ = read_conda_environment()
    assert options == ["--constraint constraints.txt", "--editable ."]
    assert content["channels"][0] == "conda-forge"
    (python,) = [line for line in content["dependencies"] if str(line).startswith("python")]
    assert (
        Version(python.partition("=")[2])
        in Requirement(f"python{PROJECT['requires-python']}").specifier
    )


def test_everything_needed_is_pinned():
    """What the dependencies need in turn is pinned too, as far as it is installed here."""
    waiting = declared_dependencies()
    seen, unpinned = set(), set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, *sorted(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        if name not in CONSTRAINTS:
            unpinned.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of an extra that is not installed: its own pin was looked at above
        for line in needs:
            need = Requirement(line)
            wanted = [{"extra": extra} for extra in (*requirement.extras, "")]
            if need.marker is None or any(need.marker.evaluate(extra) for extra in wanted):
                waiting.append(need)
    # Libraries of CUDA come with torch's build for it, which names their exact versions itself.
    assert not [name for name in unpinned if not name.startswith(("nvidia-", "cuda-", "triton"))]


def test_installed_versions_are_the_pins():
    installed = {
        canonicalize_name(found.metadata["Name"]): Version(found.version).public
        for found in importlib.metadata.distributions()
        # setuptools puts its own copies on the path once somebody imports it.
        if "_vendor" not in Path(str(found.locate_file(""))).parts
    }
    differing = {
        name: f"{installed[name]} is installed, {version} is pinned"
        for name, version in CONSTRAINTS.items()
        if name in installed and installed[name] != version.public
    }
    assert not differing, "another environment: run `make test`, or move the pins (CONTRIBUTING.md)"


def test_lock_names_no_place():
    """No editable line, no address, no path: the lock says the same on every machine."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or not set(line) & set("@/\\: "), line
