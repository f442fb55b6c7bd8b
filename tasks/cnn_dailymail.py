"""CNN/DailyMail through TFDS: cnn_dailymail_sft and cnn_dailymail_prompts (`tasks.news`)."""

from tasks import news

news.register("cnn_dailymail", "cnn_dailymail:3.4.0", document="article", summary="highlights")
