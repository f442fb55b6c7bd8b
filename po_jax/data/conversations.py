"""Prompts and completions as they stand in TRL's formats, conversations among them, as texts.

What stands under a key is a text, or a conversation: a list of messages,
[{"role": "user", "content": "..."}, ...]. A conversation becomes a text so:

- one message is its content as it is;
- several are a line "role: content" each, in their order, the system's message first if there is
  one: "system: Be brief.\\nuser: Which colour has grass?".

A message without content from the system is left out. A content that is a list of text parts is
these joined. Other parts (images), and tools that are called, no text can hold: they are refused.

A record may leave out its prompt: it is then what `chosen` and `rejected` have in common at the
beginning, in whole messages or, in texts, whole words. Completions that repeat the messages of the
prompt are taken without them. Where there is no completion, `messages` are a prompt and, if the
assistant has the last word, its completion; a prompt that stands beside them must be their
beginning.
"""

from collections.abc import Sequence
import os
import re
import reprlib
from typing import Any, cast

from po_jax.data.json_lines import Record

Turn = tuple[str, str]  # role and content
Said = str | list[Turn]


def prompt_and(record: Record, keys: Sequence[str], where: str) -> tuple[str, list[str]]:
    """The prompt of a record, and the completions under `keys`; where a prompt is not given, it is
    the beginning that they have in common.

    Raises:
      ValueError: a key is missing, or what stands there is neither text nor a conversation, is
        empty, or is no completion of the prompt; names `where`.
    """
    sides = [read(record, key, where) for key in keys]
    if "prompt" not in record and len(sides) > 1:
        beginning = _common_beginning(sides)
        if not beginning or sides[0] == sides[1]:
            raise ValueError(
                f"{where}: expected the key 'prompt', or that {' and '.join(map(repr, keys))} "
                f"begin alike and end otherwise, got only {sorted(record)!s:.200}"
            )
        prompt = render(beginning).rstrip()
        sides = [side[len(beginning) :] for side in sides]
    else:
        prompt = render(read(record, "prompt", where))
        sides = [_after(prompt, side) for side in sides]
    for key, side in zip(keys, sides, strict=True):
        if not side:
            raise ValueError(f"{where}: {key!r} says nothing after the prompt")
        if isinstance(side, list) and side[0][0] in ("user", "system"):
            raise ValueError(
                f"{where}: expected {key!r} to go on with the assistant's turn after the prompt, "
                f"got the {side[0][0]}'s {side[0][1]!r:.60}"
            )
    return prompt, [render(side) for side in sides]


def unfolded(record: Record, where: str) -> Record:
    """The record with `messages` as a prompt and a completion; any other as it is.

    Raises:
      ValueError: `messages` is no conversation; names `where`.
    """
    if "messages" not in record or record.keys() & {"completion", "summary", "chosen"}:
        return record
    said = read(record, "messages", where)
    if isinstance(said, str):
        raise ValueError(f"{where}: expected 'messages' to be a list of messages, got a text")
    prompt = render(read(record, "prompt", where)) if "prompt" in record else None
    if prompt not in (None, render(said)) and _after(prompt, said) == said:
        raise ValueError(f"{where}: expected 'messages' to begin with 'prompt', got another prompt")
    messages = record["messages"]
    if messages[-1]["role"] != "assistant":
        return {**record, "prompt": messages}
    return {**record, "prompt": messages[:-1], "completion": messages[-1:]}


def read(record: Record, key: str, where: str) -> Said:
    """The text or the conversation under a key.

    Raises:
      ValueError: it is neither, is missing or is empty; names `where`.
    """
    if key not in record:
        raise ValueError(f"{where}: expected the key {key!r}, got only {sorted(record)!s:.200}")
    value = record[key]
    said: Said
    if isinstance(value, str):
        said = value if value.strip() else ""
    elif isinstance(value, list):
        turns = [_turn(x, f"{where}: {key!r}, message {i}") for i, x in enumerate(value, start=1)]
        said = [turn for turn in turns if turn[1].strip()]
    else:
        raise ValueError(
            f"{where}: expected {key!r} to be a string or a list of messages, "
            f"got {reprlib.repr(value):.60}"
        )
    if not said:
        raise ValueError(f"{where}: {key!r} is empty")
    return said


def render(said: Said) -> str:
    """A text as it is; a conversation as the module says."""
    if isinstance(said, str):
        return said
    if len(said) == 1:
        return said[0][1]
    return "\n".join(f"{role}: {content}" for role, content in said)


def _turn(message: object, where: str) -> Turn:
    if not (isinstance(message, dict) and isinstance(message.get("role"), str)):
        raise ValueError(
            f'{where}: expected {{"role": ..., "content": ...}}, got {reprlib.repr(message):.60}'
        )
    role, content = message["role"], message.get("content")
    if message.get("tool_calls") or message.get("function_call"):
        raise ValueError(f"{where}: expected text, got a call of a tool")
    if isinstance(content, list):
        content = "".join(_part(part, where) for part in content)
    if not isinstance(content, str):
        raise ValueError(f"{where}: expected a text as content, got {reprlib.repr(content):.60}")
    if not content.strip() and role != "system":
        raise ValueError(f"{where}: the {role}'s content is empty")
    return role, content


def _part(part: object, where: str) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    raise ValueError(f"{where}: expected parts of type 'text', got {reprlib.repr(part):.60}")


def _common_beginning(sides: Sequence[Said]) -> Said:
    """What all begin with: whole messages or, of texts, whole words."""
    if len({type(side) for side in sides}) > 1:
        return ""
    common: Any = os.path.commonprefix(cast(Any, sides))  # of lists, too
    if isinstance(common, list):
        return common
    words = re.match(r".*\s", common, re.DOTALL)
    return words[0] if words and words[0].strip() else ""


def _after(prompt: str, side: Said) -> Said:
    """A completion without the messages of the prompt, where it repeats them."""
    if isinstance(side, str):
        return side
    repeated = (n for n in range(1, len(side)) if render(side[:n]).strip() == prompt.strip())
    return side[next(repeated, 0) :]
