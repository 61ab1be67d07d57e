"""The pictures of the front page: small, described, and taken of cells that are there."""

import io
import re
from pathlib import Path

import pytest

Image = pytest.importorskip("PIL.Image", reason="Pillow is missing: pip install -e '.[test]'")
pytest.importorskip(
    "playwright.sync_api",
    reason="Playwright is missing: pip install -c constraints.txt -e '.[test]'",
)

from tools import screenshots  # noqa: E402  (needs what was asked for above)

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"!\[([^\]]*)\]\(([^)]+\.png)\)", README)
TAKEN = re.findall(r'camera\.take\("([^"]+)"', Path(screenshots.__file__).read_text())


def test_the_readme_shows_each_picture_that_the_tool_takes_and_no_other():
    assert len(SHOWN) >= 6
    assert sorted(path for _, path in SHOWN) == sorted(f"docs/{name}.png" for name in TAKEN)


@pytest.mark.parametrize(("alternative", "path"), SHOWN)
def test_a_picture_is_small_and_says_in_words_what_it_shows(alternative, path):
    assert len(alternative.split()) >= 20
    assert (ROOT / path).stat().st_size <= screenshots.AT_MOST_BYTES
    with Image.open(ROOT / path) as image:
        assert image.format == "PNG"
        assert image.width == screenshots.WIDTH


@pytest.mark.parametrize(
    ("notebook", "text"),
    re.findall(r'cell_with\((\w+), "([^"]+)"\)', Path(screenshots.__file__).read_text()),
)
def test_what_is_photographed_is_a_cell_of_the_notebook(notebook, text):
    assert text in screenshots.cell_with(getattr(screenshots, notebook), text)


def png(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def test_a_picture_keeps_its_size_and_loses_colours(tmp_path, capsys):
    gradient = Image.linear_gradient("L").resize((400, 400)).convert("RGB")
    screenshots.Camera(None, tmp_path).save("small", png(gradient))
    with Image.open(tmp_path / "small.png") as image:
        assert (image.mode, image.size) == ("P", (400, 400))
    assert "small.png: 400 x 400" in capsys.readouterr().out


def test_a_picture_that_is_too_large_with_few_colours_is_refused(tmp_path):
    noise = Image.effect_noise((1200, 1200), 200).convert("RGB")
    with pytest.raises(ValueError, match=r"large: \d+ bytes with 32 colours; show less of it"):
        screenshots.Camera(None, tmp_path).save("large", png(noise))
    assert list(tmp_path.iterdir()) == []
