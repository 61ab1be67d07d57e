"""Loads the guards of notebooks wherever pytest is started in this project."""

import getpass
import os
import shutil
import tempfile
from pathlib import Path

import pytest

pytest_plugins = ["tests.notebook_guards"]


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests a temporary folder of their own, and so a queue of their own.

    Timed runs of one user queue for the machine: tests must not wait for an experiment that
    somebody has running in a notebook.
    """
    if config.option.collectonly:
        return
    # The bars of trainings: the same as in tools/execute_notebooks.py.
    os.environ.setdefault("TQDM_DISABLE", "1")
    shared = Path(tempfile.gettempdir(), f"torchinductor_{getpass.getuser()}")
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="labkit-tests-")
    # What tests do on panels and in quizzes is no learner's progress; kernels inherit this.
    os.environ["LABKIT_PROGRESS"] = str(Path(tempfile.tempdir, "progress"))
    os.environ["LABKIT_QUEUE"] = tempfile.tempdir
    # What torch has compiled stays where it keeps it: the name of each piece is its content, and
    # the headers alone take ten seconds.
    shared.mkdir(exist_ok=True)
    Path(tempfile.tempdir, shared.name).symlink_to(shared)


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    if Path(tempfile.gettempdir()).name.startswith("labkit-tests-"):
        shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)
