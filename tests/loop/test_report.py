"""The report of a loop and its status: what stands in them, that what models said stays text, how the page looks."""

import re
import shutil

import pytest
import scripted_loop
from held_runs import hold
from typer.testing import CliRunner

from selfplay import app
from selfplay.cli.main import cli
from selfplay.errors import ConfigError
from selfplay.loop.ledger import Ledger

CHROMIUM = shutil.which("chromium")
EVIL = "<script>alert(1)</script> & <img src=x onerror=alert(2)> ```` | *bold* {{ 7 * 7 }}"
LIMITS = [
    {"metric": "rounds", "relative_to": "human", "min": 1.3},
    {"metric": "distinct_2", "relative_to": "first_iteration", "min": 0.5},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A loop of two iterations whose examples say what is not to be obeyed."""
    folder = tmp_path_factory.mktemp("loops") / "a <b> & c"
    scripted_loop.run(folder, health=LIMITS, description="two iterations of <nothing>")
    for number in range(3):
        talk = ["Hello?", f"answer of {number}", *[f"turn {n}" for n in range(9)]]
        hold(folder / f"{number:03d}/bench/examples", {"c0": talk, "c1": [EVIL, EVIL]})
    return folder


@pytest.fixture(scope="module")
def pages(folder):
    html, markdown = app.loop_report(folder)
    return html.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8")


def test_both_pages_hold_the_figures_the_funnel_and_the_health(folder, pages):
    ledger = {(entry.iteration, entry.stage): entry for entry in Ledger(folder).entries()}
    bits = ledger[2, "bench"].figures["bits_per_byte"]
    kept = ledger[1, "curate"].figures["kept"]
    for page in pages:
        assert f"{bits[0]:.3f} [{bits[1]:.3f}, {bits[2]:.3f}]" in page
        for told in ("2 of 2 iterations, finished", "distinct-2 of user turns (as people)", "iteration 2, assistant"):
            assert told in page
        assert (
            page.index("The assistant") < page.index("Simulated users") < page.index("Curation") < page.index("Health")
        )
    assert f"| ending | {kept:,} |" in pages[1]
    assert re.search(r"past: 0\.9\d\d", pages[0])
    assert re.search(r"rounds is 0\.9\d+ of people", pages[1])


def test_the_html_page_needs_nothing_beside_it_and_runs_nothing(pages):
    html = pages[0]
    assert html.count("data:image/svg+xml;base64,") == html.count("<img ")
    assert html.count("<img ") == 3
    assert "default-src &#39;none&#39;" in html or "default-src 'none'" in html
    assert not re.search(r"<(script|link|iframe)\b|src=\"(?!data:)|href=", html)


def test_what_models_said_stays_text(pages):
    html, markdown = pages
    assert "<script>" not in html
    assert "onerror=alert(2)&gt;" in html
    assert "{{ 7 * 7 }}" in html
    assert f"`````text\nuser: {EVIL}\nassistant: {EVIL}\n(user_ended)\n`````" in markdown
    assert "two iterations of &lt;nothing&gt;" in html


def test_the_pictures_of_the_markdown_lie_beside_it(folder, pages):
    named = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", pages[1])
    assert named == ["assistant.svg", "users.svg", "funnel.svg"]
    assert all((folder / "report" / name).stat().st_size > 1000 for name in named)


def test_a_report_of_a_loop_that_has_only_begun_or_failed(tmp_path):
    with pytest.raises(RuntimeError):
        scripted_loop.run(tmp_path, fails={(1, "generate"): RuntimeError("no luck\n# <b> `")})
    html, markdown = (page.read_text(encoding="utf-8") for page in app.loop_report(tmp_path))
    assert "iteration 1, generate failed: RuntimeError: no luck" in html
    assert "- **warning:** `iteration 1, generate failed: RuntimeError: no luck # &lt;b&gt; '`" not in markdown
    assert "- **warning:** `iteration 1, generate failed: RuntimeError: no luck # <b> '`" in markdown
    assert "0 of 2 iterations, not running" in html
    with pytest.raises(ConfigError, match="no loop in it"):
        app.loop_report(tmp_path / "nowhere")


def test_status_is_a_table_of_iterations_and_stages(folder):
    shown = (
        CliRunner().invoke(cli, ["loop", "status", str(folder)], catch_exceptions=False, env={"COLUMNS": "150"}).output
    )
    header = next(line for line in shown.splitlines() if "generate" in line)
    assert re.sub(r"[┃\s]+", " ", header).split() == ["simulator", "generate", "curate", "assistant", "bench"]
    rows = [line for line in shown.splitlines() if "done" in line and "│" in line]
    assert [row.count("done") for row in rows] == [1, 5, 4]
    assert rows[0].startswith("│ 0, before │")
    assert "warning, iteration 2: rounds is" in shown
    assert "2 of 2 iterations, all are done" in shown
    unnamed = CliRunner().invoke(cli, ["loop", "status"])
    assert unnamed.exit_code == 2
    assert "Missing argument 'folder'" in unnamed.output


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_in_a_browser(folder, pages):
    """No script, no message, every picture drawn, no sideways scrolling on a desk or a phone, details that open."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 900})
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto((folder / "report/report.html").as_uri())
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 300)")
        for width in (1180, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        columns = page.locator(".talks").first.locator(".talk")
        assert columns.locator("h3").all_text_contents() == ["before", "iteration 1", "iteration 2"]
        assert columns.locator(".turn").first.inner_text() == "answer of 0"
        assert not page.get_by_text("turn 8").first.is_visible()
        columns.locator("summary").first.click()
        assert page.get_by_text("turn 8").first.is_visible()
        assert page.locator("td.past").count() >= 1
        browser.close()
    assert said == []
