"""The Dockerfile says the same as the Makefile, and does what Binder and JupyterHub ask for.

No image is built here: that takes minutes and gigabytes (docs/hub.md says how one was). What can be
wrong without one is held together here.
"""

import fnmatch
import json
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from labkit.doctor import all_checks

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/hub.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def instructions():
    """Pairs of instruction and arguments, without comments, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [tuple(line.split(" ", 1)) for line in lines if line.strip()]


STEPS = instructions()


def of(name):
    return [rest for step, rest in STEPS if step == name]


ARGS = dict(argument.split("=", 1) for argument in of("ARG"))
PIP = [step for step in of("RUN") if "pip install" in step]


def installs(line):
    """What a line with pip asks for: extras of this project, or names."""
    return re.findall(r"'\.\[([\w,]+)\]'", line)


def test_only_instructions_that_docker_knows():
    assert {step for step, _ in STEPS} <= {"FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR"} | {
        "USER",
        "CMD",
    }


def test_the_shell_can_read_every_step():
    for line in of("RUN"):
        subprocess.run(["sh", "-n", "-c", line], check=True)


def test_python_is_one_that_the_project_supports_and_that_conda_gets():
    (base,) = of("FROM")
    image, tag = base.split(":")
    version = re.match(r"\d+\.\d+", tag)[0]
    assert image == "python"
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert f"python={version}" in conda["dependencies"]


def test_everything_is_installed_under_the_constraints():
    assert PIP
    for line in PIP:
        assert "--constraint constraints.txt" in line


def test_torch_comes_first_and_alone_at_the_pin_of_the_constraints_and_without_cuda():
    assert PIP[0].split(" && ")[0].endswith("${TORCH_ARGS} torch")
    assert "torch.version.cuda is None" in PIP[0]
    assert "$(PIP_INSTALL) $(TORCH_ARGS) torch\n" in MAKEFILE
    (pin,) = re.findall(r"^torch==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert f"torch=={pin}" in PROJECT["dependencies"]


def test_the_image_has_the_extras_of_make_lab():
    made = re.search(r"\.installed: .*\n(?:\t.*\n)*", MAKEFILE)[0]
    (extras,) = installs(made)
    assert installs(PIP[-1]) == [extras]


IGNORED = [
    line
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
COPIED = [source for line in of("COPY") for source in line.split()[:-1]]


def is_ignored(path):
    """As Docker reads the patterns used here: ``**/`` is any folder or none, else the top one."""
    parts = Path(path).parts
    return any(
        fnmatch.filter(parts if pattern.startswith("**/") else parts[:1], pattern.split("/")[-1])
        for pattern in IGNORED
    )


def test_patterns_are_of_the_two_kinds_that_are_understood_here():
    assert [line for line in IGNORED if "/" in line.removeprefix("**/")] == []


def test_what_is_copied_is_there_and_reaches_the_build():
    assert {"labkit", "notebooks", "data", "constraints.txt"} <= set(COPIED)
    for source in COPIED:
        line = ["git", "ls-files", "-z", "--", source]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
        files = [name for name in done.stdout.split("\0") if name]
        assert files, source
        assert [name for name in files if is_ignored(name)] == []


@pytest.mark.parametrize(
    "path",
    [
        ".git/HEAD",
        ".venv/bin/python",
        ".mypy_cache/3.11/labkit.json",
        "labkit/__pycache__/api.cpython-311.pyc",
        "notebooks/.ipynb_checkpoints/00-start-here-checkpoint.ipynb",
        # The results of a class, perhaps with names.
        "records/one.json",
        "notebooks/records/one.json",
        "teacher/records/one.json",
    ],
)
def test_what_is_no_part_of_the_lab_stays_outside(path):
    assert is_ignored(path)


def test_learners_find_in_their_home_what_the_notebooks_read():
    (home,) = [line for line in of("RUN") if "cp -r " in line]
    names = re.search(r"cp -r (.*?) \$\{HOME\}", home)[1].split()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for read in re.findall(r"\.\./(\w+)/", path.read_text(encoding="utf-8")):
            assert read in names, f"{path.name} reads ../{read}"
    assert "chown -R ${NB_UID} ${HOME}" in home


def test_everybody_can_read_what_came_from_a_checkout_with_a_strict_umask():
    names = [f"{step} {rest}" for step, rest in STEPS]
    (readable,) = [number for number, line in enumerate(names) if "chmod -R a+rX ." in line]
    assert readable > max(number for number, (step, _) in enumerate(STEPS) if step == "COPY")
    assert readable < names.index("USER ${NB_UID}")


def test_binder_gets_the_user_that_it_asks_for():
    assert (ARGS["NB_USER"], ARGS["NB_UID"]) == ("jovyan", "1000")
    (environment,) = of("ENV")
    assert "HOME=/home/${NB_USER}" in environment
    assert of("USER")[-1] == "${NB_UID}"
    assert of("WORKDIR")[-1] == "${HOME}"
    # Binder and hubs put their own command behind the image's name.
    assert not of("ENTRYPOINT")
    assert any("notebook==${NOTEBOOK_VERSION}" in line for line in PIP)


def test_the_package_does_not_lie_where_a_hub_mounts_a_volume():
    assert of("WORKDIR")[0] == "/opt/labkit"
    steps = [rest for step, rest in STEPS if step in {"WORKDIR", "RUN"}]
    assert steps.index(PIP[-1]) < steps.index("${HOME}")


def test_the_doctor_knows_the_checks_that_the_build_asks_for():
    (line,) = [line for line in of("RUN") if "doctor" in line]
    wanted = shlex.split(line.partition("--only")[2].partition("&&")[0])
    assert set(wanted) < set(all_checks(Path()))
    # What belongs to the machine that builds says nothing of the one that runs.
    assert not {"cores", "memory", "disk", "shm", "port"} & set(wanted)


@pytest.mark.parametrize(
    ("token", "program"), [("secret", "jupyterhub-singleuser"), ("", "jupyter lab")]
)
def test_the_command_is_the_hubs_server_on_a_hub_and_jupyterlab_elsewhere(tmp_path, token, program):
    for name in ("jupyter", "jupyterhub-singleuser"):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\necho {name} "$@"\n')
        script.chmod(0o755)
    (command,) = of("CMD")
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "JUPYTERHUB_API_TOKEN": token,
    }
    done = subprocess.run(
        json.loads(command), env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(program)


def test_the_page_names_arguments_that_the_dockerfile_has():
    named = re.findall(r"--build-arg (\w+)=", PAGE)
    assert named
    assert set(named) <= set(ARGS)


def test_the_page_says_the_memory_that_the_readme_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    measured = re.search(r"together it was ([\d., and]+) GiB", readme)[1]
    assert measured in PAGE


def test_what_the_page_gives_for_the_hubs_can_be_read_by_them():
    (python,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    compile(python, "jupyterhub_config.py", "exec")
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    hook = yaml.safe_load(text)["singleuser"]["lifecycleHooks"]["postStart"]["exec"]["command"]
    subprocess.run([hook[0], "-n", *hook[1:]], check=True)
    folders = re.findall(rf"{of('WORKDIR')[0]}/(\w+)", hook[-1])
    assert {"notebooks", "data"} <= set(folders) <= set(COPIED)


def test_links_of_the_page_point_to_files():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
