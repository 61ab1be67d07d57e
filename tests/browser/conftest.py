"""A real JupyterLab in a real Chromium, for tests that press the buttons that a reader presses.

A test asks for the fixture `lab` and gets a `LabPage`:

    def test_the_panel_runs(lab):
        lab.open("notebooks/00-start-here.ipynb")   # a fresh copy of the project's notebook
        lab.run_all_cells()                         # waits until the last one is finished
        assert lab.errors() == []
        lab.button("Run").click()
        expect(lab.page.get_by_text("faster")).to_be_visible()
        lab.screenshot("after-run")                 # tests/browser/artifacts/<test>-after-run.png

`lab.page` is Playwright's own page: `expect(...)` and its locators wait by themselves, so no test
sleeps. The server is started once in each process of tests, in a temporary folder with copies of
`notebooks/` and `data/`, and with a home of its own; kernels end with the test that started them.
A test that fails leaves a screenshot and the browser's console. Everything here is marked
`browser`, and is skipped with the line that installs what is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = Path(__file__).parent / "artifacts"

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGS = [
    "--no-sandbox",  # it does not start as root otherwise, as in a container
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SETTINGS = {
    # No question about news, no look at the network for updates.
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # All cells are in the page: a locator finds those that are scrolled away, too.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}
THEMES = "@jupyterlab/apputils-extension/themes"

START_S = 90
CELL_S = 300


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.failed_in_call = report.failed
    return report


@dataclass
class LabServer:
    """A JupyterLab server of this session.

    Attributes:
        root: the folder that it shows, with copies of the project's notebooks and data.
        settings: the folder of its user settings.
    """

    url: str
    token: str
    root: Path
    settings: Path
    process: subprocess.Popen

    def api(self, path, method="GET"):
        """Call the server's REST interface; give what it answers, from JSON."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}api/{path}",
            method=method,
            headers={"Authorization": f"token {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=20) as reply:  # noqa: S310
            body = reply.read()
        return json.loads(body) if body else None

    def shut_down_kernels(self):
        """End all sessions, and with them their kernels."""
        for session in self.api("sessions"):
            # A session whose kernel died may be gone already.
            with contextlib.suppress(urllib.error.HTTPError):
                self.api(f"sessions/{session['id']}", "DELETE")

    def setting(self, plugin):
        """The file of a plugin's user settings."""
        return self.settings / f"{plugin}.jupyterlab-settings"


@pytest.fixture(scope="session")
def chromium():
    """The path of a Chromium; skips the test where there is none."""
    pytest.importorskip(
        "playwright.sync_api",
        reason="Playwright is missing: pip install -c constraints.txt -e '.[test]'",
    )
    found = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, CHROMIUM_NAMES)), None
    )
    if found is None:
        pytest.skip(
            "Chromium is missing: apt-get install --no-install-recommends chromium "
            "fonts-dejavu-core (or name another one: CHROMIUM=/path/to/it)"
        )
    return found


@pytest.fixture(scope="session")
def browser(chromium, tmp_path_factory):
    """Playwright's context of a browser with a profile of its own, started once.

    What JupyterLab loads is compiled once for all tests: that is a third of the time of a page.
    """
    from playwright.sync_api import expect, sync_playwright

    # A busy machine takes its time; what has to come soon says so where it is expected.
    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=chromium, args=CHROMIUM_ARGS
        )
        yield started
        started.close()


@pytest.fixture(scope="session")
def lab_server(chromium, tmp_path_factory):
    """A running `LabServer`. It depends on the browser, to start nothing that is not used."""
    base = tmp_path_factory.mktemp("jupyterlab")
    root = base / "root"
    root.mkdir()
    for name in ("notebooks", "data"):
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__")
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
    process, log = start_server(base, root)
    try:
        url, token = wait_for_server(process, base / "runtime", log)
        server = LabServer(url, token, root, base / "settings", process)
        yield server
        server.shut_down_kernels()
    finally:
        stop_group(process)


def start_server(base, root):
    """Start JupyterLab with nothing of this user's: no configuration, no history, no records."""
    # What belongs to the user, or to the JupyterLab that the tests may be started from.
    foreign = ("JUPYTER", "JPY_", "IPYTHON", "XDG_", "LABKIT", "TQDM")
    env = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    env["LABKIT_PROGRESS"] = str(base / "progress")
    folders = {
        "HOME": "home",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    for variable, name in folders.items():
        (base / name).mkdir()
        env[variable] = str(base / name)
    for plugin, content in SETTINGS.items():
        path = base / "settings" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1"]
    # Somebody may take the port before the server does: it then tries others, and its own file in
    # the runtime folder says which one it got.
    command += [f"--port={port}", f"--ServerApp.root_dir={root}"]
    command += [f"--IdentityProvider.token={secrets.token_hex(16)}"]
    command += ["--LabApp.expose_app_in_browser=True"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command += ["--allow-root"]
    log = base / "server.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=root,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process, log


def wait_for_server(process, runtime, log):
    """Give address and token as soon as the server answers."""
    deadline = time.monotonic() + START_S
    info = runtime / f"jpserver-{process.pid}.json"
    reason = "it wrote no address"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            found = json.loads(info.read_text())
            request = f"{found['url']}api/status?token={found['token']}"
            with urllib.request.urlopen(request, timeout=5):  # noqa: S310
                return found["url"], found["token"]
        except (OSError, ValueError) as error:
            reason = str(error)
            time.sleep(0.1)
    stop_group(process)
    pytest.fail(f"JupyterLab did not start ({reason}):\n{log.read_text(errors='replace')[-3000:]}")


def stop_group(process):
    """End a process and all of its group; it has its own session."""
    for number, seconds in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return


class LabPage:
    """A notebook in JupyterLab, with the things that every test does.

    Attributes:
        page: Playwright's page, for everything else.
        server: the `LabServer`.
        console: messages of warnings and errors in the browser's console, and uncaught errors.
    """

    def __init__(self, page, server, name):
        self.page = page
        self.server = server
        self.name = name
        self.console = []
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: self.console.append(f"uncaught: {error}"))
        page.on("console", self._listen)

    def _listen(self, message):
        if message.type in {"error", "warning"}:
            self.console.append(f"{message.type}: {message.text}")

    def write_notebook(self, name, *cells):
        """Write a notebook of code cells into the server's folder; give the path for `open`."""
        spec = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        notebook = new_notebook(
            cells=[new_code_cell(cell) for cell in cells], metadata={"kernelspec": spec}
        )
        nbformat.write(notebook, self.server.root / name)
        return name

    def open(self, notebook, *, sidebar=False):
        """Open a notebook by its path in the server's folder and wait until its kernel is idle.

        A notebook of the project is copied afresh: what an earlier test saved is gone. The file
        browser on the left is folded away unless `sidebar` is true.
        """
        if (ROOT / notebook).is_file():
            shutil.copyfile(ROOT / notebook, self.server.root / notebook)
        address = f"{self.server.url}lab/tree/{notebook}?token={self.server.token}&reset"
        self.page.goto(address)
        self.wait_until_idle()
        if not sidebar:
            self.command("application:toggle-left-area")
            self.page.locator("#jp-left-stack").wait_for(state="hidden")

    def wait_until_idle(self, timeout_s=60):
        """Wait until the status bar says that the kernel is idle: it accepts input from now on."""
        status = self.page.locator("#jp-main-statusbar").get_by_text("| Idle")
        status.wait_for(timeout=timeout_s * 1000)

    def command(self, name, **arguments):
        """Execute a command of JupyterLab and wait for its end."""
        self.page.evaluate(
            # What the command gives back is no plain data; the page keeps it.
            "([name, arguments]) => jupyterapp.commands.execute(name, arguments).then(() => {})",
            [name, arguments],
        )

    def run_all_cells(self, timeout_s=CELL_S):
        """Run all cells and wait until the last is finished, or one has raised."""
        self.page.evaluate(
            """() => {
                window.labRunning = true;
                const done = () => { window.labRunning = false; };
                window.jupyterapp.commands.execute("notebook:run-all-cells").then(done, done);
            }"""
        )
        self.page.wait_for_function("!window.labRunning", timeout=timeout_s * 1000)

    def run_cell(self, number, timeout_s=CELL_S):
        """Run one cell (counting from 0, text cells too) by Shift+Enter and wait for its end."""
        cell = self.cell(number)
        prompt = cell.locator(".jp-InputPrompt").first
        before = prompt.inner_text()
        cell.locator(".cm-content").first.click()
        self.page.keyboard.press("Shift+Enter")
        # A number in brackets that was not there before: neither "[ ]:" nor "[*]:".
        self.page.wait_for_function(
            "([prompt, before]) => /\\d/.test(prompt.innerText) && prompt.innerText !== before",
            arg=[prompt.element_handle(), before],
            timeout=timeout_s * 1000,
        )

    def cell(self, number):
        """Locate a cell of the open notebook, counting from 0, text cells too."""
        return self.page.locator(".jp-NotebookPanel:visible .jp-Notebook .jp-Cell").nth(number)

    def output(self, number):
        """Locate the output area of a cell."""
        return self.cell(number).locator(".jp-Cell-outputArea")

    def button(self, name, within=None):
        """Locate a button by its exact name; `within` a locator, where the page has several."""
        return (within or self.page).get_by_role("button", name=name, exact=True)

    def errors(self):
        """Give all that went wrong on the page, as texts; an empty list is what a test wants.

        These are errors of cells (unless tagged raises-exception), tracebacks inside widgets, and
        widgets that could not be shown.
        """
        cells = self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells"
        )
        found = [
            f"{output['ename']}: {output['evalue']}"
            for cell in cells
            if "raises-exception" not in cell["metadata"].get("tags", [])
            for output in cell.get("outputs", [])
            if output["output_type"] == "error"
        ]
        widgets = self.page.locator(".jupyter-widgets").get_by_text("Traceback (most recent call")
        broken = self.page.get_by_text(re.compile("Error (displaying|creating) widget"))
        return [*found, *widgets.all_inner_texts(), *broken.all_inner_texts()]

    def set_theme(self, theme):
        """Switch to the "dark" or the "light" theme and wait for its colours."""
        names = {"dark": "JupyterLab Dark", "light": "JupyterLab Light"}
        self.command("apputils:change-theme", theme=names[theme])
        light = str(theme == "light").lower()
        self.page.locator(f'body[data-jp-theme-light="{light}"]').wait_for(state="attached")
        # A curtain hides the page while the colours are loaded.
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")

    def set_width(self, width, height=900):
        """Change the size of the window, in CSS pixels."""
        self.page.set_viewport_size({"width": width, "height": height})

    def screenshot(self, name, locator=None):
        """Save a picture of the window, or of one element in full; give its path."""
        ARTIFACTS.mkdir(exist_ok=True)
        path = ARTIFACTS / f"{self.name}-{name}.png"
        if locator is None:
            self.page.screenshot(path=path)
        else:
            locator.scroll_into_view_if_needed()
            locator.screenshot(path=path)
        return path


@pytest.fixture
def lab(request, browser, lab_server):
    """A `LabPage` with a window of its own, 1200 x 900, in the light theme."""
    name = re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
    page = LabPage(browser.new_page(), lab_server, name)
    page.set_width(1200)
    yield page
    if getattr(request.node, "failed_in_call", False):
        # What is seen here is a help; the test's own error is the one to report.
        with contextlib.suppress(Exception):
            print("screenshot:", page.screenshot("failed").relative_to(ROOT))
        print("console of the browser:", *page.console, sep="\n  ")
    page.page.close()
    lab_server.shut_down_kernels()
    lab_server.setting(THEMES).unlink(missing_ok=True)
