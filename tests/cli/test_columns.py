"""Tables, paragraphs and commands, on terminals of any width."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucnn.cli import columns as module
from gpucnn.cli.columns import columns, command, counted, fold, paragraph, sentence, widest
from gpucnn.terminal import harmless, width

ROWS = [["name", "what", "size"], ["mnist", "60,000 handwritten digits", "11.6"], ["\u4e2d\u6587", "two words", "9"]]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):
    """Makes standard output a terminal of so many columns."""

    def of(room: int) -> None:
        monkeypatch.setattr(module, "is_terminal", lambda stream: True)
        monkeypatch.setattr(module, "room", lambda stream: room)

    return of


def test_without_a_terminal_a_row_is_a_line() -> None:
    wide = [["a" * 90, "b" * 90, "1"], ["c", "d", "22"]]
    assert columns(wide, "<<>") == [f"{'a' * 90}  {'b' * 90}   1", f"c{' ' * 91}d{' ' * 91}22"]


def test_wide_characters_take_their_columns() -> None:
    assert columns(ROWS, "<<>") == [
        "name   what                       size",
        "mnist  60,000 handwritten digits  11.6",
        "\u4e2d\u6587   two words                     9",
    ]


def test_text_is_folded_before_anything_goes_elsewhere(terminal) -> None:
    terminal(30)
    assert columns(ROWS, "<<>") == [
        "name   what               size",
        "mnist  60,000             11.6",
        "       handwritten",
        "       digits",
        "\u4e2d\u6587   two words             9",
    ]


def test_columns_that_do_not_fit_go_below_beside_the_first(terminal) -> None:
    terminal(20)
    rows = [["", "one", "two", "three"], ["a", "1111111", "2222222", "33"], ["b", "1", "2", "3"]]
    assert columns(rows, "<>") == [
        "       one      two",
        "a  1111111  2222222",
        "b        1        2",
        "",
        "   three",
        "a     33",
        "b      3",
    ]


TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


@given(st.lists(st.tuples(TEXT, TEXT, st.integers().map(str)), min_size=1, max_size=4), st.integers(30, 90))
def test_no_line_is_wider_and_nothing_is_lost(rows: list[tuple[str, str, str]], room: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "is_terminal", lambda stream: True)
        patch.setattr(module, "room", lambda stream: room)
        rows = [(name, text, number[:20]) for name, text, number in rows]
        lines = columns(rows, "<<>")
    assert max(map(width, lines)) <= room
    letters = "".join(lines)
    for row in rows:
        for cell in row:
            assert set(harmless(cell)) <= set(letters) | {" "}


@given(TEXT, st.integers(1, 30))
def test_fold_breaks_words_only_where_it_must(text: str, most: int) -> None:
    shown = harmless(text)
    lines = fold(shown, most)
    assert "".join(lines).replace(" ", "") == shown.replace(" ", "")
    assert max(map(width, lines)) <= max(most, 2)  # a wide character has two columns


def test_a_paragraph_leaves_long_words_whole(terminal) -> None:
    terminal(40)
    assert paragraph("saved", f"runs/{'x' * 50}.h5, and more", 7) == [
        "saved",
        f"  runs/{'x' * 50}.h5,",
        "       and more",
    ]


def test_a_sentence_is_a_line_in_a_file() -> None:
    text = "word " * 40
    assert sentence("data", text.strip(), 7) == [f"data   {text.strip()}"]


def test_a_command_on_several_lines_means_the_same(terminal) -> None:
    words = ("evaluate", "--checkpoint", "'my run/of a long name/best.h5'")
    assert command("next  ", *words) == [f"next   gpucnn {' '.join(words)}"]
    terminal(40)
    lines = command("next  ", *words)
    assert len(lines) == 2
    script = "\n".join(lines).removeprefix("next   gpucnn")
    said = subprocess.run(["bash", "-c", f"printf '%s|' {script}"], capture_output=True, text=True, check=True).stdout
    assert said == "evaluate|--checkpoint|my run/of a long name/best.h5|"


def test_the_first_form_that_fits() -> None:
    assert widest(["abcdef", "abc", "a"], 4) == "abc"
    assert widest(["abcdef", "abc"], 1) == "abc"


def test_one_is_singular() -> None:
    assert [counted(n, "epoch") for n in (0, 1, 2, 1000)] == ["0 epochs", "1 epoch", "2 epochs", "1,000 epochs"]
