"""XSum through TFDS: xsum_sft and xsum_prompts (`tasks.news`)."""

from tasks import news

news.register("xsum", "xsum:1.1.0", document="document", summary="summary")
