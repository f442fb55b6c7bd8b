"""The rules that turn docstrings into pairs, each on a docstring written for it."""

import pytest

from tasks.docstring_text import pair

PROSE = "Two rows of one kind count twice."


def body_of(raw: str) -> str:
    body, summary = pair(f"Adds up the rows of a table.\n\n{raw}\n\n{PROSE}")
    assert summary == "Adds up the rows of a table."
    assert body.endswith(PROSE)
    return body.removesuffix(PROSE).rstrip("\n")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(">>> add([1])\n1", "", id="doctest"),
        pytest.param("For instance:\n\n```\nadd([1])\n```", "For instance:", id="fence"),
        pytest.param("Call it so::\n\n    add([1])", "", id="literal block"),
        pytest.param(".. math::\n\n    a + b = c", "", id="directive"),
        pytest.param("Example:\n  add([1])", "", id="Google examples"),
        pytest.param("See Also\n--------\nother : another function", "See", id="numpy see also"),
        pytest.param("Raises:\n  ValueError: if it is empty.", "", id="errors"),
        pytest.param(
            "Args:\n  table: What to add.\n  axis: Along which.",
            "Args: table: What to add. axis: Along which.",
            id="Google arguments",
        ),
        pytest.param(":param table: What to add.\n:rtype: int", "table: What to add.", id="Sphinx"),
        pytest.param("See :func:`~a.b` and ``c`` [1]_.", "See a.b and c.", id="marks"),
        pytest.param("Of `them <https://x.org>`_ all.", "Of them all.", id="link"),
        pytest.param("One line\nand another.", "One line and another.", id="wrapped"),
    ],
)
def test_what_is_not_prose_is_taken_out(body, expected):
    if expected == "See":  # a numpy section ends only at the next heading
        text, _ = pair(f"Adds up the rows of a table.\n\n{PROSE}\n\n{body}\n\n{PROSE}")
        assert text == PROSE
    else:
        assert body_of(body) == expected


def test_types_of_numpy_arguments_go_and_descriptions_stay():
    raw = f"""Adds up the rows of a table.

        {PROSE}

        Parameters
        ----------
        table : array_like
            What to add.
        axis, other : int, optional
            Along which.

        References
        ----------
        A book that nobody has read to its end in this century.
        """
    body, _ = pair(raw)
    assert body == f"{PROSE}\nArgs: table: What to add. axis, other: Along which."


def test_a_summary_that_wraps_ends_with_its_sentence():
    body, summary = pair(f"Adds up the rows\nof a table. Skips headers.\n\n{PROSE}")
    assert summary == "Adds up the rows of a table."
    assert body == f"Skips headers.\n{PROSE}"


@pytest.mark.parametrize(
    "rest", ["", "\n\n    >>> add([1])", "\n\n" + "x_1 + 2.0 * 33 / 4 = 7\n" * 5]
)
def test_a_summary_needs_no_body(rest):
    assert pair(f"Adds up the rows of a table.{rest}") == ("", "Adds up the rows of a table.")


@pytest.mark.parametrize(
    "docstring",
    [
        pytest.param(f"Adds.\n\n{PROSE}", id="short summary"),
        pytest.param(f"Adds up the following rows:\n\n{PROSE}", id="summary announces"),
        pytest.param(f"Adds up the rows of a caf\u00e9.\n\n{PROSE}", id="not ASCII"),
        pytest.param(f"{PROSE[:-1].lower()}\n\n{PROSE}", id="body begins with the summary"),
    ],
)
def test_what_is_not_a_summary_of_prose_is_refused(docstring):
    assert pair(docstring) is None


def test_a_long_body_ends_with_a_whole_word():
    body, _ = pair("Adds up the rows of a table.\n\n" + "\n\n".join([PROSE] * 9))
    assert body == "\n".join([PROSE] * 3) + "\nTwo rows of..."
    assert len(body) <= 120 < len(body) + len(" one ")
