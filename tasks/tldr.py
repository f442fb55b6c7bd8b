"""Reddit TL;DR: posts, their authors' summaries, and OpenAI's human comparisons.

Importing the module registers tldr_sft, tldr_prompts (both from sft.SPLIT.jsonl) and
tldr_comparisons (comparisons.SPLIT.jsonl), read from the folder PO_JAX_TLDR_DIR, tokenised with
the vocabulary PO_JAX_VOCABULARY. The comparisons keep the schema of the release of "Learning to
summarize from human feedback" (https://arxiv.org/abs/2009.01325): `info.{post,title,subreddit}`,
two `summaries` with `text`, and `choice`, the index of the one preferred.
"""

from etils import epath

from po_jax.data import records
from tasks import registration, vocabularies

FOLDER_VARIABLE = "PO_JAX_TLDR_DIR"


def prompt(post: str, title: str | None, subreddit: str | None) -> str:
    """The text to summarise; lines without content are left out."""
    head = [("SUBREDDIT: r/", subreddit), ("TITLE: ", title), ("POST: ", post)]
    return "summarize: " + "\n".join(label + value for label, value in head if value)


def comparison(record: records.Record, where: str) -> records.Row:
    """One line of the release's comparisons.

    Raises:
      ValueError: not of the release's schema; names `where`.
    """
    info, summaries, choice = (record.get(key) for key in ("info", "summaries", "choice"))
    if not isinstance(info, dict):
        raise ValueError(f"{where}: expected 'info' to be an object, got {info!r:.60}")
    if not (isinstance(summaries, list) and [type(s) for s in summaries] == [dict, dict]):
        raise ValueError(f"{where}: expected two 'summaries', got {summaries!r:.60}")
    if choice not in (0, 1):
        raise ValueError(f"{where}: expected 'choice' to be 0 or 1, got {choice!r:.60}")
    first, second = (records.text(summary, "text", where) for summary in summaries)
    return {
        "inputs": _prompt(info, where),
        "completion_1": first.strip(),
        "completion_2": second.strip(),
        "preference": float(1 - choice),
    }


def demonstration(record: records.Record, where: str) -> records.Row:
    """A post and its author's own summary."""
    summary = records.text(record, "summary", where).strip()
    return {"inputs": _prompt(record, where), "targets": summary, "answers": [summary]}


def post(record: records.Record, where: str) -> records.Row:
    """A post to be summarised, and its author's summary as the answer."""
    row = demonstration(record, where)
    del row["targets"]
    return row


def _prompt(post: records.Record, where: str) -> str:
    title, subreddit = (records.optional_text(post, key, where) for key in ("title", "subreddit"))
    return prompt(records.text(post, "post", where), title, subreddit)


def _file(kind: str, split: str) -> epath.Path:
    return registration.folder(FOLDER_VARIABLE) / f"{kind}.{split}.jsonl"


_VOCABULARY = vocabularies.from_environment()
registration.add_sft(
    "tldr_sft", lambda split: records.rows(_file("sft", split), demonstration), _VOCABULARY
)
registration.add_prompts(
    "tldr_prompts", lambda split: records.rows(_file("sft", split), post), _VOCABULARY
)
registration.add_comparisons(
    "tldr_comparisons",
    lambda split: records.rows(_file("comparisons", split), comparison),
    _VOCABULARY,
)
