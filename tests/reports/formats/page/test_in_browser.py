"""The HTML page in a real browser: it sorts, fits, prints, can be read, and requests nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sadp_bench.reports import render
from sadp_bench.reports.formats import html
from tests.reports.formats.page.chromium import Tab, installed, tab
from tests.reports.formats.page.example_page import BAD, hostile, whole

pytestmark = pytest.mark.skipif(
    installed() is None, reason="no Chromium on the PATH: the page is not tried in a browser"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with tab(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "a page.html"
    path.write_text(whole(), encoding="utf-8")
    return path


def asked_for(browser: Tab) -> list[str]:
    return [result["request"]["url"] for result in browser.events_of("Network.requestWillBeSent")]


def complaints(browser: Tab) -> list[dict[str, Any]]:
    return browser.events_of(
        "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening"
    )


def column(browser: Tab, number: int) -> list[float | None]:
    result: list[str | None] = browser.value(
        f"[...document.querySelector('.sortable').tBodies[0].rows].map(row => row.cells[{number}].dataset.value ?? null)"
    )
    return [None if value is None else float(value) for value in result]


def test_page_opens_without_a_complaint_or_a_request(browser: Tab, file: Path) -> None:
    browser.open(file)
    assert browser.value("[...document.querySelectorAll('.plot img')].every(img => img.naturalWidth > 100)") is True
    assert complaints(browser) == []
    assert [url for url in asked_for(browser) if not url.startswith("data:")] == [file.as_uri()]


def test_click_on_a_head_sorts_by_number_both_ways_and_what_is_missing_stays_last(browser: Tab, file: Path) -> None:
    browser.open(file)
    heads: list[str] = browser.value(
        "[...document.querySelectorAll('.sortable')[0].tHead.rows[0].cells].map(h => h.innerText)"
    )
    for name in ("accuracy", "to random", "speed-up"):
        [number] = [place for place, head in enumerate(heads) if head.startswith(name)]
        before = column(browser, number)
        there = sorted(value for value in before if value is not None)
        missing = [None] * before.count(None)
        head = f"document.querySelectorAll('.sortable')[0].tHead.rows[0].cells[{number}]"
        for direction, expected in (("ascending", there), ("descending", there[::-1])):
            browser.value(f"{head}.querySelector('button').click()")
            assert column(browser, number) == [*expected, *missing]
            assert browser.value(f"{head}.ariaSort") == direction
            assert browser.value("document.querySelectorAll('[aria-sort]').length") == 1
    assert any(value is None for value in column(browser, 6)), "no number is missing: nothing was shown of that"
    assert complaints(browser) == []


def test_keyboard_sorts_and_shows_where_it_is(browser: Tab, file: Path) -> None:
    browser.open(file)
    browser.value("document.querySelector('.sortable button').focus()")
    browser.press("Tab")
    browser.press("Enter")
    assert browser.value("document.activeElement.closest('th').ariaSort") == "ascending"
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert column(browser, 1) == sorted(value for value in column(browser, 1) if value is not None)


def test_filter_shows_the_lines_and_runs_that_have_all_words(browser: Tab, file: Path) -> None:
    browser.open(file)
    lines = (
        "[...document.querySelectorAll('{}')].filter(e => !e.hidden && !e.closest('[hidden]')).map(e => e.textContent)"
    )
    box = "document.querySelector('#filter')"
    write = f"{box}.value = '{{}}'; {box}.dispatchEvent(new Event('input'))"
    before = [browser.value(lines.format(name)) for name in (".claims tbody tr", ".run > summary")]
    browser.value(write.format("random 90"))
    shown = [browser.value(lines.format(name)) for name in (".claims tbody tr", ".run > summary")]
    for all_lines, found in zip(before, shown, strict=True):
        assert found and found == [line for line in all_lines if "Random" in line and "90" in line]
    assert browser.value("document.querySelector('.filter output').textContent") == "1 of 7 lines"
    assert browser.value(lines.format("section.group h2")) == browser.value(lines.format(".finding h3"))
    browser.value(write.format(""))
    assert [browser.value(lines.format(name)) for name in (".claims tbody tr", ".run > summary")] == before
    assert complaints(browser) == []


def test_page_never_scrolls_sideways_and_wide_tables_do_in_their_own_box(browser: Tab, file: Path) -> None:
    for width in (320, 768, 1280):
        browser.open(file, width=width)
        browser.value("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert browser.value("document.documentElement.scrollWidth") <= width
        outside = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre'))"
        beyond = f"{outside}.filter(e => e.getBoundingClientRect().right > {width + 1})"
        assert browser.value(f"{beyond}.map(e => e.outerHTML.slice(0, 80))") == []
        box = "[...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)"
        assert browser.value(box) or width > 1000


def test_page_reads_without_its_script(browser: Tab, file: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(file)
        root = browser.call("DOM.getDocument", depth=-1)["root"]["nodeId"]
        found = browser.call("DOM.querySelectorAll", nodeId=root, selector=".claims tbody tr")["nodeIds"]
        buttons = browser.call("DOM.querySelectorAll", nodeId=root, selector="button, input")["nodeIds"]
        assert len(found) == 7 and not buttons, "a button that does nothing"
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


CONTRAST = """(() => {
  const parts = (color) => {
    const found = color.match(/[\\d.]+/g).map(Number);
    return color.startsWith("color(") ? found.slice(0, 3).map((v) => 255 * v) : found;
  };
  const light = (color) => {
    const [r, g, b] = parts(color).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if ((parts(color)[3] ?? 1) > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  return [...document.querySelectorAll("body *")]
    .filter((e) => !e.closest("script") && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((e) => {
      const style = getComputedStyle(e);
      const [a, b] = [light(style.color), light(behind(e))];
      return { text: e.textContent.slice(0, 40), ratio: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) };
    });
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_has_the_contrast_of_wcag_aa(browser: Tab, file: Path, dark: bool) -> None:
    browser.open(file, dark=dark)
    result = browser.value(CONTRAST)
    assert len(result) > 300
    assert [one for one in result if one["ratio"] < 4.5] == []
    paper = browser.value("getComputedStyle(document.documentElement).getPropertyValue('--paper')")
    assert (paper != "#ffffff") == dark


def test_page_prints_to_several_sheets(browser: Tab, file: Path) -> None:
    browser.open(file)
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF-") and len(pdf) > 20_000
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 3


def test_hostile_records_do_nothing(browser: Tab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "plots_by_group", lambda *_: {})
    records, failures = hostile()
    path = tmp_path / "hostile.html"
    path.write_text(render(records, [BAD], "html", failures=failures), encoding="utf-8")
    browser.open(path, width=375)
    browser.value("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert browser.value("typeof window.owned") == "undefined"
    assert complaints(browser) == [] and [url for url in asked_for(browser) if not url.startswith("data:")] == [
        path.as_uri()
    ]
    assert browser.value("document.documentElement.scrollWidth") <= 375
