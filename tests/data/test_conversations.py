"""TRL's formats as texts, by its documentation's own examples, and what is refused."""

import pytest

from po_jax.data import conversations, records

ASK = {"role": "user", "content": "What color is the sky?"}
BLUE = {"role": "assistant", "content": "It is blue."}
GREEN = {"role": "assistant", "content": "It is green."}
BRIEF = {"role": "system", "content": "Be brief."}
AGAIN = {"role": "user", "content": "And grass?"}
SEVERAL = (
    "system: Be brief.\nuser: What color is the sky?\nassistant: It is blue.\nuser: And grass?"
)


def say(role: str, content) -> dict:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        # "The sky is blue." against "The sky is green.": TRL's own example of an implicit prompt.
        (
            {"chosen": "The sky is blue.", "rejected": "The sky is green."},
            ("The sky is", "blue.", "green."),
        ),
        # Not "gre": a common beginning ends where a word does.
        ({"chosen": "Grass is green", "rejected": "Grass is grey"}, ("Grass is", "green", "grey")),
        (
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: Sure",
                "rejected": "\n\nHuman: Hi\n\nAssistant: So",
            },
            ("\n\nHuman: Hi\n\nAssistant:", "Sure", "So"),
        ),
        (
            {"prompt": [ASK], "chosen": [BLUE], "rejected": [GREEN]},
            (ASK["content"], "It is blue.", "It is green."),
        ),
        (
            {"chosen": [ASK, BLUE], "rejected": [ASK, GREEN]},
            (ASK["content"], "It is blue.", "It is green."),
        ),
        (
            {
                "chosen": [BRIEF, ASK, BLUE, AGAIN, GREEN],
                "rejected": [BRIEF, ASK, BLUE, AGAIN, BLUE],
            },
            (SEVERAL, "It is green.", "It is blue."),
        ),
        (  # a prompt that both sides repeat, as a text and as a conversation
            {"prompt": ASK["content"], "chosen": [ASK, BLUE], "rejected": [ASK, GREEN]},
            (ASK["content"], "It is blue.", "It is green."),
        ),
        (
            {"prompt": [BRIEF, ASK], "chosen": [BRIEF, ASK, BLUE], "rejected": [GREEN]},
            ("system: Be brief.\nuser: What color is the sky?", "It is blue.", "It is green."),
        ),
        (
            {"prompt": "A text.", "chosen": [BLUE, AGAIN, GREEN], "rejected": "no"},
            (
                "A text.",
                "assistant: It is blue.\nuser: And grass?\nassistant: It is green.",
                "no",
            ),
        ),
        (  # an empty system's message, a content in parts, other keys
            {
                "prompt": [
                    say("system", ""),
                    say("user", [{"type": "text", "text": "a"}, {"type": "text", "text": " b"}]),
                ],
                "chosen": [{**BLUE, "name": "x", "tool_calls": []}],
                "rejected": [GREEN],
            },
            ("a b", "It is blue.", "It is green."),
        ),
        (  # texts stay as they are, white space included
            {"prompt": " a\n", "chosen": " b ", "rejected": "c\r\n"},
            (" a\n", " b ", "c\r\n"),
        ),
    ],
)
def test_comparisons(record, expected):
    row = records.comparison(record, "here")
    assert (row["inputs"], row["completion_1"], row["completion_2"]) == expected
    answered = records.prompt(record, "here")
    assert answered == {"inputs": expected[0], "answers": [expected[1]]}


@pytest.mark.parametrize(
    ("record", "inputs", "target"),
    [
        ({"prompt": [ASK], "completion": [BLUE]}, ASK["content"], "It is blue."),
        ({"messages": [ASK, BLUE]}, ASK["content"], "It is blue."),
        ({"prompt": ASK["content"], "messages": [ASK, BLUE]}, ASK["content"], "It is blue."),
        (
            {"prompt": [BRIEF, ASK], "messages": [BRIEF, ASK, BLUE, AGAIN, GREEN]},
            SEVERAL,
            "It is green.",
        ),
        ({"prompt": "a", "completion": "b", "messages": [ASK, BLUE]}, "a", "b"),
        ({"messages": [BRIEF, ASK, BLUE, AGAIN, GREEN]}, SEVERAL, "It is green."),
    ],
)
def test_demonstrations(record, inputs, target):
    row = records.demonstration(record, "here")
    assert (row["inputs"], row["targets"], row["answers"]) == (inputs, target, [target])
    assert records.prompt(record, "here") == {"inputs": inputs, "answers": [target]}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"prompt": [ASK]}, {"inputs": ASK["content"], "answers": []}),
        ({"messages": [ASK]}, {"inputs": ASK["content"], "answers": []}),
        ({"prompt": [ASK], "messages": [ASK]}, {"inputs": ASK["content"], "answers": []}),
        ({"prompt": "a", "completion": None}, {"inputs": "a", "answers": []}),
        ({"prompt": "a", "completion": " "}, {"inputs": "a", "answers": []}),
        ({"prompt": "a", "completion": "b", "label": True}, ["b"]),
        ({"prompt": "a", "completion": "b", "label": False}, []),
        ({"prompt": "a", "summary": "b", "chosen": "c", "rejected": "d"}, ["b"]),
        ({"prompt": "a", "chosen": "c", "rejected": "d", "preference": 0.2}, ["d"]),
    ],
)
def test_prompts(record, expected):
    if isinstance(expected, list):
        expected = {"inputs": "a", "answers": expected}
    assert records.prompt(record, "here") == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "expected 'prompt' to be a string or a list of messages, got None"),
        (5, "to be a string or a list of messages, got 5"),
        (True, "to be a string or a list of messages, got True"),
        ({"role": "user", "content": "a"}, "a list of messages, got {'content'"),
        ("", "'prompt' is empty"),
        ("\u2028", "'prompt' is empty"),
        ([], "'prompt' is empty"),
        ([BRIEF | {"content": " "}], "'prompt' is empty"),
        (["a"], 'message 1: expected {"role": ..., "content": ...}, got \'a\''),
        ([[ASK]], 'message 1: expected {"role": ..., "content": ...}, got \\['),
        ([ASK, {"from": "human", "value": "x"}], 'message 2: expected {"role"'),
        ([{"role": 5, "content": "a"}], 'message 1: expected {"role"'),
        ([{"role": "user"}], "message 1: expected a text as content, got None"),
        ([say("user", 5)], "message 1: expected a text as content, got 5"),
        ([say("user", {"text": "a"})], "message 1: expected a text as content, got {'text'"),
        ([say("user", " ")], "message 1: the user's content is empty"),
        ([say("user", [])], "message 1: the user's content is empty"),
        ([say("user", [{"type": "image"}])], "message 1: expected parts of type 'text', got"),
        ([say("user", ["a"])], "message 1: expected parts of type 'text', got 'a'"),
        ([ASK, BLUE | {"tool_calls": [{}]}], "message 2: expected text, got a call of a tool"),
        (10**400, "a list of messages, got 1000"),
        ([[[[[[[[[[1]]]]]]]]]], "message 1: expected"),
    ],
)
def test_what_is_no_prompt_is_named(value, message):
    record = {"prompt": value, "chosen": "a", "rejected": "b", "completion": "c"}
    for parse in (records.comparison, records.demonstration, records.prompt):
        with pytest.raises(ValueError, match=f"f.jsonl, line 7: .*{message}") as raised:
            parse(record, "f.jsonl, line 7")
        assert len(str(raised.value)) < 300
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"chosen": "red", "rejected": "blue"}, "or that 'chosen' and 'rejected' begin alike"),
        ({"chosen": "a b", "rejected": "a b"}, "begin alike and end otherwise"),
        ({"chosen": [BLUE], "rejected": [GREEN]}, "or that 'chosen' and 'rejected' begin alike"),
        ({"chosen": [ASK, BLUE], "rejected": "a"}, "or that 'chosen' and 'rejected' begin alike"),
        ({"chosen": [ASK, BLUE], "rejected": [ASK, BLUE]}, "begin alike and end otherwise"),
        ({"chosen": [ASK], "rejected": [ASK, BLUE]}, "'chosen' says nothing after the prompt"),
        (
            {"chosen": [ASK, BLUE, AGAIN], "rejected": [ASK, BLUE, ASK]},
            "'chosen' to go on with the assistant's turn after the prompt, got the user's 'And gr",
        ),
        (
            {"prompt": "Another.", "chosen": [ASK, BLUE], "rejected": [ASK, GREEN]},
            "'chosen' to go on with the assistant's turn after the prompt, got the user's 'What",
        ),
        ({"prompt": "a", "chosen": 5, "rejected": "b"}, "'chosen' to be a string or a list"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "'rejected' to be a string or a list"),
        ({"prompt": "a", "chosen": "b"}, "expected the key 'rejected', got only"),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "chosen_ended": "no"},
            "'chosen_ended' to be true or false, got 'no'",
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "rejected_ended": 0},
            "'rejected_ended' to be true or false, got 0",
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "preference": 10**400},
            r"'preference' in \[0, 1\], got 1000",
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "preference": float("inf")},
            r"'preference' in \[0, 1\], got inf",
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "preference": None},
            "'preference' to be a number, got None",
        ),
    ],
)
def test_what_is_no_comparison_is_named(record, message):
    with pytest.raises(ValueError, match=f"f.jsonl, line 7: .*{message}") as raised:
        records.comparison(record, "f.jsonl, line 7")
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "a", "completion": 5}, "'completion' to be a string or a list of messages"),
        ({"prompt": "a", "completion": []}, "'completion' is empty"),
        ({"prompt": "a", "completion": [ASK]}, "'completion' to go on with the assistant's turn"),
        ({"prompt": "a", "summary": {}}, "'summary' to be a string or a list of messages, got {}"),
        ({"messages": "a"}, "'messages' to be a list of messages, got a text"),
        ({"messages": 5}, "'messages' to be a string or a list of messages, got 5"),
        ({"messages": [BLUE]}, "'prompt' is empty"),
        (
            {"prompt": "a", "messages": [ASK, BLUE]},
            "'messages' to begin with 'prompt', got another",
        ),
        ({"prompt": 5, "messages": [ASK, BLUE]}, "'prompt' to be a string or a list of messages"),
        ({"text": "a"}, "expected the key '(prompt|completion)', got only"),
    ],
)
def test_what_is_no_demonstration_is_named(record, message):
    for parse in (records.demonstration, records.prompt):
        with pytest.raises(ValueError, match=f"f.jsonl, line 7: .*{message}"):
            parse(record, "f.jsonl, line 7")


def test_a_completion_that_is_labelled_bad_is_not_imitated():
    record = {"prompt": "a", "completion": "b", "label": False}
    with pytest.raises(
        ValueError, match="f.jsonl, line 7: .* to imitate, got one with 'label' fal"
    ):
        records.demonstration(record, "f.jsonl, line 7")


def test_one_message_is_its_content():
    assert conversations.render([("assistant", "a: b\nc")]) == "a: b\nc"
