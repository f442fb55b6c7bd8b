"""Who says P(y1 > y2 | x): trained T5s, any Python function, ROUGE.

An algorithm's feed calls its judge the annotator.
"""

from po_jax.judges.calls import CallFailed, CallRecord, Calls
from po_jax.judges.endpoint import Endpoint
from po_jax.judges.functions import CallableJudge, CallableReward
from po_jax.judges.judge import CallsFunction, Judge, JudgeError, Judgement, Pairs, ask
from po_jax.judges.learned import LearnedJudge, trained_judge
from po_jax.judges.models import PreferenceModel, RewardModel
from po_jax.judges.other_vocabulary import OtherVocabularyJudge
from po_jax.judges.rouge import RougeJudge
from po_jax.judges.tournament import ask_about_all, best_and_worst

__all__ = [
    "CallFailed",
    "CallRecord",
    "CallableJudge",
    "CallableReward",
    "Calls",
    "CallsFunction",
    "Endpoint",
    "Judge",
    "JudgeError",
    "Judgement",
    "LearnedJudge",
    "OtherVocabularyJudge",
    "Pairs",
    "PreferenceModel",
    "RewardModel",
    "RougeJudge",
    "ask",
    "ask_about_all",
    "best_and_worst",
    "trained_judge",
]
