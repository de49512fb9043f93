"""The page in a real browser: clicks, keys, dark and narrow, and every sum added up by the page's own script."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from layer_recordings import recorded

from gpucnn.checks.gradcheck import LAYERS
from gpucnn.cli.main import main
from gpucnn.explain.page import Subject, build

pytestmark = pytest.mark.browser
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (360, 1000, 1800)

RANDOM = "let seed = 1; const random = (n) => { seed = (seed * 1103515245 + 12345) % 2147483648; return seed % n; };"
SUMS = """(count) => { RANDOM
  const kinds = {}, found = [];
  gpucnn.facts.layers.forEach((layer, i) => layer.equations.forEach(({ name }) => {
    if (name in gpucnn.facts.steps[0].tensors[i]) (kinds[`${layer.kind} ${name}`] ??= []).push([i, name]);
  }));
  for (const [kind, places] of Object.entries(kinds)) for (let k = 0; k < count; k++) {
    const [layer, name] = places[random(places.length)];
    const { shape } = gpucnn.facts.store[gpucnn.facts.steps[0].tensors[layer][name]];
    const { recorded, sum } = gpucnn.number(0, layer, name, random(shape.reduce((a, b) => a * b, 1)));
    found.push([kind, recorded, sum]);
  }
  return found;
}""".replace("RANDOM", RANDOM)
DIFFERENCES = """(count) => { RANDOM
  const found = [];
  gpucnn.facts.layers.forEach((layer, i) => Object.entries(layer.paths).forEach(([symbol, path]) => {
    const gradient = gpucnn.tensor(0, i, `d${symbol}`);
    for (let k = 0; k < count; k++) {
      const place = random(gradient.length);
      found.push([path, gradient[place], gpucnn.finiteDifference(0, i, symbol, place).slope]);
    }
  }));
  return found;
}""".replace("RANDOM", RANDOM)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("explain") / "explain.html"
    assert main(["explain", "--out", str(out)]) == 0
    return out.as_uri()


class Opened:
    """A page that is ready; what it asked for and complained about."""

    def __init__(self, chromium: Any, address: str, width: int = 1000, **options: Any) -> None:
        self.page = chromium.new_page(viewport={"width": width, "height": 900}, **options)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready]", timeout=60_000)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).first.inner_text())

    def at(self) -> int:
        return int(self.page.evaluate("gpucnn.state.at"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_step_is_drawn_within_the_width_and_asks_for_nothing(
    chromium: Any, address: str, width: int, scheme: str
) -> None:
    opened = Opened(chromium, address, width, color_scheme=scheme)
    for step in range(opened.page.evaluate("gpucnn.tour.length")):
        opened.page.evaluate(f"gpucnn.go({step})")
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.page.locator("#tensors figure").count() >= 1
        assert opened.text("#number .big")
    assert opened.requests == [address]
    assert opened.complaints == []


def test_a_click_shows_what_the_number_is_made_of_and_a_link_leads_to_its_origin(chromium: Any, address: str) -> None:
    opened = Opened(chromium, address)
    opened.page.evaluate("gpucnn.go(3)")  # the second convolution
    before = opened.text("#number-title")
    opened.page.locator("#tensors figure.made canvas").first.click(position={"x": 5, "y": 5})
    after = opened.text("#number-title")
    assert after != before
    assert after.startswith("y[")
    assert "The trainer computed" in opened.text("#number .check")
    opened.page.locator("#number .link").first.click()  # x of this layer is y of the pooling before it
    assert opened.at() == 2
    assert opened.text("#step-title") == "MaxPool2D"
    assert opened.page.locator("#number tr.winner").count() == 1


def test_keys_step_through_and_move_within_a_tensor(chromium: Any, address: str) -> None:
    opened = Opened(chromium, address)
    opened.page.keyboard.press("ArrowRight")
    opened.page.keyboard.press("ArrowRight")
    opened.page.keyboard.press("ArrowLeft")
    assert opened.at() == 1
    opened.page.keyboard.press("End")
    assert opened.at() == opened.page.evaluate("gpucnn.tour.length - 1")
    opened.page.keyboard.press("Home")
    opened.page.locator('.lens button[aria-pressed="true"]').focus()
    index = opened.page.evaluate("gpucnn.state.index")
    opened.page.keyboard.press("ArrowDown")
    assert opened.page.evaluate("gpucnn.state.index") == [index[0], index[1] + 1, *index[2:]]
    assert opened.at() == 0
    opened.page.keyboard.press("PageUp")
    assert opened.page.evaluate("gpucnn.state.index")[3] == index[3] - 1


@pytest.mark.parametrize("case", LAYERS)
def test_whatever_gradcheck_knows_can_be_shown(chromium: Any, tmp_path: Path, case: str) -> None:
    make, shape = LAYERS[case]
    out = tmp_path / "layer.html"
    out.write_text(build([recorded(make(), shape)], Subject(case, "numbers", (0.0,), (1.0,), (), 0)), encoding="utf-8")
    opened = Opened(chromium, out.as_uri())
    for step in range(opened.page.evaluate("gpucnn.tour.length")):
        opened.page.evaluate(f"gpucnn.go({step})")
        assert opened.page.locator("#tensors figure").count() >= 1
    for kind, number, total in opened.page.evaluate(SUMS, 40):
        assert total == pytest.approx(number, rel=1e-3, abs=1e-5), kind
    assert opened.complaints == []


def test_is_that_true_runs_the_network_again(chromium: Any, address: str) -> None:
    opened = Opened(chromium, address)
    opened.page.evaluate("gpucnn.follow(0, 'dw', [0, 2, 2, 0])")
    opened.page.get_by_text("Is that true?").click()
    assert "Difference divided by" in opened.text("#number .check[role=status]")


def test_every_sum_is_its_number(chromium: Any, address: str) -> None:
    found = Opened(chromium, address).page.evaluate(SUMS, 1000)
    assert len(found) >= 16_000
    for kind, number, total in found:
        assert total == pytest.approx(number, rel=1e-3, abs=1e-30), kind


def test_finite_differences_agree_with_the_gradients(chromium: Any, address: str) -> None:
    found = Opened(chromium, address).page.evaluate(DIFFERENCES, 20)
    assert len(found) == 20 * 10
    for path, gradient, slope in found:
        assert slope == pytest.approx(gradient, rel=1e-2, abs=1e-7), path


def test_steps_of_training_have_a_slider(chromium: Any, tmp_path: Path) -> None:
    out = tmp_path / "steps.html"
    assert main(["explain", "--steps", "3", "--out", str(out)]) == 0
    opened = Opened(chromium, out.as_uri())
    before = opened.text("#number .big")
    opened.page.locator("#training-step").focus()
    opened.page.keyboard.press("End")
    assert opened.text("#training-where").startswith("3 of 3")
    assert opened.text("#number .big") != before
    assert opened.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_contrast_labels_and_roles(chromium: Any, address: str, width: int, scheme: str) -> None:
    """By axe-core, whose script is named in AXE_CORE."""
    script = os.environ.get("AXE_CORE")
    if not script:
        pytest.skip("needs axe-core: AXE_CORE=axe.min.js")
    opened = Opened(chromium, address, width, color_scheme=scheme)
    opened.page.add_script_tag(path=script)
    for step in (0, 2, 12, 21, 25):
        opened.page.evaluate(f"gpucnn.go({step})")
        violations = opened.page.evaluate("axe.run()")["violations"]
        assert [(found["id"], found["nodes"][0]["html"]) for found in violations] == []
