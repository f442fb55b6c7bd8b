"""Who takes part in `real_lengths` besides po_jax, each a T5 1.0 of random parameters.

plain        the best code one can write with transformers: posts sorted by length, each batch
             padded to its own longest, rows that ended taken out of both decoders' caches as
             soon as a quarter has; a step in micro-batches of 8 pairs of like lengths;
compiled     its step, with policy and reference under `torch.compile` for any length;
ctranslate2  a library made for serving, which draws from one model alone and gives no
             log-probabilities: half of the work. A callback ends each row where it must end.
"""

from collections.abc import Sequence
import os
from pathlib import Path
import tempfile

import numpy as np
from sentencepiece import SentencePieceProcessor
import torch
from torch.nn import functional
import transformers
from transformers.modeling_outputs import BaseModelOutput

from tests.benchmarks.hugging_face_t5 import fresh
from tests.benchmarks.real_lengths import BETA, SIZES, TAU, VOCAB, vocabulary_file

MICRO_BATCH = 8
torch.set_num_threads(len(os.sched_getaffinity(0)))


class Plain:
    """Hugging Face T5 on PyTorch."""

    sorts = True

    def __init__(self, size: str):
        torch.manual_seed(0)
        self.policy, self.reference = fresh(**SIZES[size]), fresh(**SIZES[size]).eval()
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=1e-5)

    def padded(self, rows):
        return torch.from_numpy(rows[..., : (rows > 0).sum(-1).max()]).long()

    @torch.no_grad()
    def sampling(self, prompt, completion):
        models, prompt = (self.policy, self.reference), self.padded(prompt)
        ends = torch.from_numpy((completion > 0).sum(-1)).flatten()
        attention = (prompt > 0).long()
        states = [model.encoder(prompt, attention_mask=attention)[0] for model in models]
        states = [each.repeat_interleave(2, dim=0) for each in states]
        attention = attention.repeat_interleave(2, dim=0)
        caches, tokens = [None, None], torch.zeros((len(ends), 1), dtype=torch.long)
        for step in range(1, int(ends.max()) + 1):
            logprobs = []
            for i, model in enumerate(models):
                out = model(
                    encoder_outputs=BaseModelOutput(states[i]),
                    attention_mask=attention,
                    decoder_input_ids=tokens,
                    past_key_values=caches[i],
                    use_cache=True,
                )
                caches[i] = out.past_key_values
                logprobs.append(functional.log_softmax(out.logits[:, -1], dim=-1))
            mixed = functional.softmax((1 - BETA) * logprobs[0] + BETA * logprobs[1], dim=-1)
            tokens = torch.multinomial(mixed, 1)
            for row in logprobs:
                row.gather(1, tokens)
            going = (ends > step).nonzero()[:, 0]
            if 0 < len(going) <= 0.75 * len(ends):
                ends, tokens, attention = ends[going], tokens[going], attention[going]
                states = [each[going] for each in states]
                for cache in caches:
                    cache.batch_select_indices(going)

    def score(self, model, prompt, completion):
        rows, attention = completion.flatten(0, 1), (prompt > 0).long()
        states = model.encoder(prompt, attention_mask=attention)[0]
        logits = model(
            encoder_outputs=BaseModelOutput(states.repeat_interleave(2, dim=0)),
            attention_mask=attention.repeat_interleave(2, dim=0),
            decoder_input_ids=functional.pad(rows, (1, 0))[:, :-1],
        ).logits
        targets = rows.masked_fill(rows == 0, -100).flatten()
        losses = functional.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
        return -losses.reshape(completion.shape).sum(-1)

    def step(self, prompt, completion):
        self.optimizer.zero_grad()
        for at in range(0, len(prompt), MICRO_BATCH):
            x, y = (self.padded(rows[at : at + MICRO_BATCH]) for rows in (prompt, completion))
            with torch.no_grad():
                log_mu = self.score(self.reference, x, y)
            ratio = self.score(self.policy, x, y) - log_mu
            loss = torch.square(ratio[:, 0] - ratio[:, 1] - 1 / (2 * TAU)).sum()
            (loss / len(prompt)).backward()
        self.optimizer.step()


class Compiled(Plain):
    """Scores by one compiled function."""

    def __init__(self, size: str):
        super().__init__(size)
        self.score = torch.compile(super().score, dynamic=True)


class CTranslate2:
    """Draws from the policy alone."""

    sorts = True

    def __init__(self, size: str):
        import ctranslate2

        pieces = SentencePieceProcessor(vocabulary_file())
        known = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(len(pieces))]
        with tempfile.TemporaryDirectory() as folder:
            path, made = Path(folder) / "t5", Path(folder) / "converted"
            fresh(**SIZES[size]).save_pretrained(path)
            tokenizer = transformers.T5Tokenizer(known)
            tokenizer.save_pretrained(path)
            ctranslate2.converters.TransformersConverter(str(path)).convert(str(made))
            self._model = ctranslate2.Translator(
                str(made), "cpu", inter_threads=1, intra_threads=torch.get_num_threads()
            )
        self._pieces = tokenizer.convert_ids_to_tokens(range(VOCAB))

    def _tokens(self, ids: Sequence[int]) -> list[str]:
        return [self._pieces[token] for token in ids if token]

    def sampling(self, prompt, completion):
        ends = (completion > 0).sum(axis=-1).ravel()
        prompts = [self._tokens(ids) for ids in np.repeat(prompt, 2, axis=0)]
        drawn = self._model.translate_batch(
            prompts,
            beam_size=1,
            sampling_topk=0,
            min_decoding_length=int(ends.max()),
            max_decoding_length=int(ends.max()),
            callback=lambda step: step.step + 1 >= ends[step.batch_id],
        )
        assert [len(each.hypotheses[0]) for each in drawn] == ends.tolist()

    one_model = sampling  # It has nothing else to draw from.


MAKE = {"plain": Plain, "compiled": Compiled, "ctranslate2": CTranslate2}
