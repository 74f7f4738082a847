"""A real JupyterLab, a headless Chromium, and a look into the kernel that does not go through the browser."""

import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from playwright.sync_api import Browser, Page, expect, sync_playwright

from servers import end, free_ports, need, spawn

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build" / "shots"
CHROMIUM = Path("/usr/bin/chromium")
AUDIT = (Path(__file__).parent / "audit.js").read_text().partition("\n")[2]
_LOCAL = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")

# Chromium shares two cores with JupyterLab, a kernel, a PostgreSQL and a run.
expect.set_options(timeout=60_000)


class Lab:
    """What `make lab` starts, in a folder of its own: JupyterLab, and the demo's database."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "work"
        self._home = home
        self.token = "for-this-test-only"
        [self._port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        _write(home / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings",
               {"fetchNews": "false", "checkForUpdates": False})  # fmt: skip
        places = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
        env = os.environ | {f"JUPYTER_{name}": str(home / place) for name, place in places.items()}
        env |= {"IPYTHONDIR": str(home / "ipython"), "JUPYTERLAB_SETTINGS_DIR": str(home / "settings")}
        env |= {"JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"), "HEADWATER_MASK_KEY": "k" * 40}
        words = [
            str(self.folder), str(ROOT / "notebooks"),
            "--no-browser", "--ip=127.0.0.1", f"--port={self._port}",
            "--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}",
            "--LabApp.extension_manager=readonly",
            "--LabApp.news_url=None", "--LabApp.expose_app_in_browser=True",
        ]  # fmt: skip
        self._process = spawn([sys.executable, "-m", "headwater.demo.lab", *words], home / "lab.log", env)

    def wait(self) -> None:
        ends = time.monotonic() + 90
        while True:
            try:
                self.get("/api/status")
                return
            except OSError:
                said = (self._home / "lab.log").read_text()[-3000:]
                assert self._process.poll() is None and time.monotonic() < ends, said
                time.sleep(0.2)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}?token={self.token}", timeout=10) as answer:
            return json.load(answer)

    def write(self, name: str, cells: Sequence[str]) -> None:
        """A notebook of code cells."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(notebook, self.folder / name)

    def ask(self, notebook: str, expression: str) -> Any:
        """What an expression is in the notebook's own kernel."""
        kernel = next(s for s in self.get("/api/sessions") if s["path"] == notebook)["kernel"]["id"]
        client = BlockingKernelClient()
        client.load_connection_file(str(self._home / "runtime" / f"kernel-{kernel}.json"))
        client.start_channels()
        said: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            assert message["msg_type"] != "error", message["content"]["evalue"]
            if message["msg_type"] == "stream":
                said.append(message["content"]["text"])

        try:
            client.wait_for_ready(timeout=20)
            code = f"import json as _j; print('@@' + _j.dumps({expression}))"
            client.execute_interactive(code, output_hook=hear, timeout=30, store_history=False)
        finally:
            client.stop_channels()
        return json.loads("".join(said).partition("@@")[2])

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)  # the group that `spawn` made: JupyterLab too
        end(self._process)


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(value))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    need(CHROMIUM.exists(), "apt-get install chromium chromium-sandbox fonts-dejavu-core")
    server = Lab(tmp_path_factory.mktemp("lab"))
    server.wait()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def browser(lab: Lab) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)
        yield browser
        browser.close()


class Sheet:
    """One notebook, open in the browser."""

    def __init__(self, lab: Lab, page: Page, name: str) -> None:
        self.lab, self.page, self.name = lab, page, name

    def open(self) -> None:
        self.page.goto(f"{self.lab.url}/lab/tree/{self.name}?token={self.lab.token}&reset")
        # The page shows "Idle" before the session is ready, and drops what is run until then.
        self.page.wait_for_function("() => window.jupyterapp", timeout=60_000)
        self.page.evaluate(_READY)
        self.page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")

    def run(self) -> None:
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def theme(self, dark: bool) -> None:
        name = "JupyterLab Dark" if dark else "JupyterLab Light"
        self.page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", name
        )
        self.page.locator(f"body[data-jp-theme-light='{str(not dark).lower()}']").wait_for(state="attached")
        self.page.wait_for_timeout(400)

    def ask(self, expression: str) -> Any:
        return self.lab.ask(self.name, expression)

    def shoot(self, title: str, name: str) -> None:
        """The widget, light and dark, for people to look at; nobody may need better eyes than others have."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        wrong: list[str] = []
        for dark in (True, False):
            self.theme(dark)
            place = SHOTS / f"{name}-{'dark' if dark else 'light'}.png"
            self.widget(title).screenshot(path=place)
            wrong += self.widget(title).evaluate(AUDIT)
        assert wrong == []

    def widget(self, title: str) -> Any:
        return self.page.get_by_role("region", name=title, exact=True)


_READY = """async () => {
  const app = window.jupyterapp;
  await app.started;
  const ends = Date.now() + 60000;
  let sheet;
  while (!(sheet = app.shell.currentWidget) || !sheet.sessionContext) {
    if (Date.now() > ends) throw Error("no notebook");
    await new Promise((again) => setTimeout(again, 50));
  }
  await sheet.context.ready;
  await sheet.sessionContext.ready;
  await sheet.sessionContext.session.kernel.info;
}"""


@contextmanager
def watched(browser: Browser) -> Iterator[Page]:
    """A new page; afterwards: no error in it, and no request to anywhere but this machine."""
    context = browser.new_context(viewport={"width": 1180, "height": 1250})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    errors: list[str] = []
    outside: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(_LOCAL) else outside.append(r.url))
    try:
        yield page
    except BaseException:
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / "failed.png")
        raise
    finally:
        context.close()
    assert not errors
    assert not outside


@pytest.fixture
def sheet(lab: Lab, browser: Browser) -> Iterator[Callable[..., Sheet]]:
    """Write a notebook, open it and run all cells: `sheet("pick", ["cell", ...])`."""
    with watched(browser) as page:

        def make(name: str, cells: Sequence[str], first: str = "") -> Sheet:
            lab.write(f"{name}.ipynb", cells)
            opened = Sheet(lab, page, f"{name}.ipynb")
            opened.open()
            if first:
                page.evaluate(first)
            opened.run()
            return opened

        yield make
