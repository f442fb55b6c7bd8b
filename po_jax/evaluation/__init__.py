"""Side-by-side evaluation of policies: win rates with intervals, KL, ROUGE, report and plots."""
