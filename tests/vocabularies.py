"""Vocabularies for tests: ids whose text is plain to see."""


class Numbers:
    """Words are the ids themselves.

    Args:
      pad_id: fills rows up.
      eos_id: ends a text.
    """

    vocab_size = 1000

    def __init__(self, pad_id: int = 0, eos_id: int = 1):
        self.pad_id = pad_id
        self.eos_id = eos_id

    def encode(self, text):
        return [int(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(map(str, ids))


class Words:
    """The distinct words of a text; padding is 0 and EOS is 1."""

    pad_id = 0
    eos_id = 1

    def __init__(self, text: str):
        self._words = ["<pad>", "</s>", *dict.fromkeys(text.split())]
        self.vocab_size = len(self._words)

    def encode(self, text):
        return [self._words.index(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(self._words[i] for i in ids)
