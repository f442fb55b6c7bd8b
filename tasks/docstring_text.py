"""From a raw docstring to a (body, summary) pair of plain ASCII text, or to nothing.

The summary is the first line, or the first sentence where it wraps. The body is the rest, with
what is not prose taken out: doctests, code blocks, directives, tables, and the sections that list
examples, errors or other functions. Descriptions of arguments and results stay, without their
types: for half of the functions they are most of what the author says. Many docstrings have no
body.
"""

import inspect
import re
import unicodedata

SUMMARY_CHARACTERS = (15, 88)
SUMMARY_MIN_WORDS = 3
BODY_CHARACTERS = 120
MIN_LETTER_SHARE = 0.65  # of the characters that are not spaces: fewer is a table or a formula

# Section heading -> heading to write, or None to drop the section. Google's style writes them
# with a colon and an indented body, numpy's with a line of dashes below.
_KEPT_SECTIONS = {
    "Args:": "args, arguments, parameters, other parameters, keyword args, keyword arguments, "
    "call arguments, kwargs",
    "Returns:": "returns, return, return value",
    "Yields:": "yields, yield",
    "Attributes:": "attributes, properties",
    "": "note, notes, description, details",
}
_DROPPED_SECTIONS = (
    "raises, raise, warns, warnings, see also, references, reference, example, examples, usage, "
    "usages, example usage, usage example, standalone usage, for example, methods, input shape, "
    "output shape, routine listings"
)
_SECTIONS = {
    **{name: shown for shown, names in _KEPT_SECTIONS.items() for name in names.split(", ")},
    **dict.fromkeys(_DROPPED_SECTIONS.split(", ")),
}

_NOT_LETTERS = re.compile(r"[^a-zA-Z]+")
_DASHES = re.compile(r"^\s*[-=~]{3,}\s*$")
_ROLE = re.compile(r":[a-zA-Z][\w:+-]*:`~?([^`<]*?)(?:\s*<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]+>`_{0,2}|\[([^\]]+)\]\(\s*(?:https?|#)[^)]*\)")
_CITATION = re.compile(r"\s*\[\w+\]_")
_URL = re.compile(r"<?https?://[^\s>)]+>?")
_TAG = re.compile(r"</?(?:a|b|br|code|div|em|h\d|i|img|li|p|pre|table|td|th|tr|ul)\b[^>]*>")
_MARKS = re.compile(r"`|(?<!\w)\*\*(?=\w)|(?<=\w)\*\*(?!\w)|\\|[\x00-\x08\x0e-\x1f\x7f]")
_EMPHASIS = re.compile(r"(?<!\w)\*(\w[\w ]*)\*(?!\w)")
_TEMPLATE = re.compile(r"%\(\w+\)s|\$\{?\w+\}")
_SENTENCE_END = re.compile(r"(?<=\w\w[.])\s+(?=[A-Z])")
_SPHINX_FIELD = re.compile(r"^:(param|arg|return|returns|rtype|type|raises)\b\s*([^:]*):\s*(.*)$")
_NUMPY_ARGUMENT = re.compile(r"^(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s+:(?:\s.*)?$")


def pair(docstring: str) -> tuple[str, str] | None:
    """Returns (body, summary) of one docstring, indented as it stands in the file, or None."""
    cleaned = unicodedata.normalize("NFKC", inspect.cleandoc(docstring))
    first, _, rest = cleaned.partition("\n\n")
    if "\n" in first and (end := _SENTENCE_END.search(first)):
        first, rest = first[: end.start()], f"{first[end.end() :]}\n\n{rest}"
    summary = _inline(first)
    if not _is_summary(summary):
        return None
    body = _body(rest)
    if not body.isascii() or (body and _letter_share(body) < MIN_LETTER_SHARE):
        body = ""
    return None if _flat(summary) in _flat(body) else (body, summary)


def _is_summary(text: str) -> bool:
    low, high = SUMMARY_CHARACTERS
    return (
        low <= len(text) <= high
        and len(text.split()) >= SUMMARY_MIN_WORDS
        and text.isascii()
        and text[0].isalpha()
        and not text.endswith(":")
        and _letter_share(text) >= MIN_LETTER_SHARE
    )


def _flat(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _letter_share(text: str) -> float:
    return len(_NOT_LETTERS.sub("", text)) / max(len("".join(text.split())), 1)


def _inline(text: str) -> str:
    """One paragraph on one line, with the marks of reStructuredText and Markdown reduced."""
    text = _ROLE.sub(r"`\1`", text)
    text = _TAG.sub("", text)
    text = _LINK.sub(lambda m: m.group(1) or m.group(2), text)
    text = _TEMPLATE.sub("", _URL.sub("", _CITATION.sub("", text)))
    text = _EMPHASIS.sub(r"\1", _MARKS.sub("", text))
    return " ".join(text.split())


def _body(rest: str) -> str:
    """Paragraphs of prose, one a line, as much as is allowed, up to the end of a word."""
    lines = _sections(_without_code(rest.split("\n")))
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        text = _inline(paragraph)
        if re.search(r"[a-zA-Z]{3}", text) and not text.endswith("::"):
            paragraphs.append(text)
    body = "\n".join(paragraphs)
    if len(body) <= BODY_CHARACTERS:
        return body
    return re.sub(r"\s+\S*$", "", body[: BODY_CHARACTERS - 3]) + "..."


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _block_end(lines: list[str], start: int) -> int:
    """Index of the first line after `start` that is not blank and not indented more than it."""
    end = start + 1
    while end < len(lines) and (
        not lines[end].strip() or _indent(lines[end]) > _indent(lines[start])
    ):
        end += 1
    return end


def _without_code(lines: list[str]) -> list[str]:
    """Drops doctests, fenced blocks, literal blocks after `::`, directives and tables."""
    kept, i = [], 0
    while i < len(lines):
        text = lines[i].strip()
        if text.startswith(("```", "~~~")):
            i += 1
            while i < len(lines) and not lines[i].strip().startswith(text[:3]):
                i += 1
            i += 1
        elif text.startswith(">>>"):
            while i < len(lines) and lines[i].strip():
                i += 1
        elif text.startswith(".. "):
            i = _block_end(lines, i)
        elif text.startswith(("|", "+-", "@")):
            i += 1
        elif text.endswith("::"):
            i = _block_end(lines, i)
        else:
            kept.append(lines[i])
            i += 1
    return kept


def _sections(lines: list[str]) -> list[str]:
    """Writes the headings of kept sections in one way, and drops the other sections."""
    kept, i = [], 0
    while i < len(lines):
        text = lines[i].strip()
        underlined = i + 1 < len(lines) and bool(_DASHES.match(lines[i + 1]))
        name = text.rstrip(":").lower()
        field = _SPHINX_FIELD.match(text)
        if underlined and text:
            end = i + 2
            while end < len(lines) and not (
                end + 1 < len(lines) and lines[end].strip() and _DASHES.match(lines[end + 1])
            ):
                end += 1
            heading = _SECTIONS.get(name, text)
            if heading is not None:
                kept += ["", heading, *_without_types(lines[i + 2 : end], heading)]
            i = end
        elif text.endswith(":") and name in _SECTIONS:
            end = _block_end(lines, i)
            heading = _SECTIONS[name]
            if heading is not None:
                kept += ["", heading, *lines[i + 1 : end], ""]
            i = end
        elif field:
            if field.group(1) not in ("rtype", "type", "raises") and field.group(3):
                kept.append(f"{field.group(2) or 'Returns'}: {field.group(3)}")
            i += 1
        else:
            kept.append(lines[i])
            i += 1
    return kept


def _without_types(lines: list[str], heading: str) -> list[str]:
    """numpy's `x : array_like` lines, reduced to `x:` in the sections that list arguments."""
    if heading not in ("Args:", "Attributes:", "Returns:", "Yields:"):
        return lines
    return [_NUMPY_ARGUMENT.sub(r"\1:", line) for line in lines]
