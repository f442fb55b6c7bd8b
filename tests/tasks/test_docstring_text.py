"""The rules that turn docstrings into pairs, each on a docstring written for it."""

import pytest

from tasks.docstring_text import pair

PROSE = (
    "Rows are weighed by how often they occur, so that two of one kind count twice, "
    "and empty rows are left out of every sum."
)


def document_of(body: str) -> str:
    document, summary = pair(f"Adds up the rows of a table.\n\n{body}\n\n{PROSE}")
    assert summary == "Adds up the rows of a table."
    assert document.endswith(PROSE)
    return document.removesuffix(PROSE).rstrip("\n")


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
        document, _ = pair(f"Adds up the rows of a table.\n\n{PROSE}\n\n{body}\n\n{PROSE}")
        assert document == PROSE
    else:
        assert document_of(body) == expected


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
    document, _ = pair(raw)
    assert document == f"{PROSE}\nArgs: table: What to add. axis, other: Along which."


def test_a_summary_that_wraps_ends_with_its_sentence():
    document, summary = pair(f"Adds up the rows\nof a table. Skips headers.\n\n{PROSE}")
    assert summary == "Adds up the rows of a table."
    assert document == f"Skips headers.\n{PROSE}"


@pytest.mark.parametrize(
    "docstring",
    [
        pytest.param("Adds up the rows of a table.", id="no document"),
        pytest.param(f"Adds.\n\n{PROSE}", id="short summary"),
        pytest.param(f"Adds up the following rows:\n\n{PROSE}", id="summary announces"),
        pytest.param(f"Adds up the rows of a caf\u00e9.\n\n{PROSE}", id="not ASCII"),
        pytest.param("Adds up the rows of a table.\n\nWith care.", id="short document"),
        pytest.param(f"{PROSE[:79].lower()}\n\n{PROSE}", id="document begins with the summary"),
        pytest.param(
            "Adds up the rows of a table.\n\n" + "x_1 + 2.0 * 33 / 4 ** 5 - 0.6 = 7\n" * 9,
            id="formulas",
        ),
    ],
)
def test_what_is_not_a_summary_of_prose_is_refused(docstring):
    assert pair(docstring) is None


def test_a_long_document_ends_with_a_whole_paragraph():
    document, _ = pair("Adds up the rows of a table.\n\n" + "\n\n".join([PROSE] * 99))
    assert len(document) <= 2000 < len(document) + len(PROSE)
    assert set(document.split("\n")) == {PROSE}
