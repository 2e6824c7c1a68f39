"""The registry of the scorecard's metrics: name, title, group, and which direction is good.

Human is not high or low: of diversity, habits and rounds the best figure is that of people, in the row beside it.
"""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """One line of the scorecard."""

    name: str
    title: str
    group: str
    good: str


LIKELIHOOD, TERMINATION, NATURALNESS = "people's turns, predicted", "end of the conversation", "told from people"
DIVERSITY, INTENT, HABITS, DISTANCE = "diversity", "intent", "habits", "distance from people"

METRICS = (
    Metric("bits_per_byte", "bits per byte of people's user turns", LIKELIHOOD, "low"),
    Metric("perplexity", "perplexity of people's user turns (own tokenizer)", LIKELIHOOD, "low"),
    Metric("bits_per_byte_intent", "bits per byte, intent given", LIKELIHOOD, "low"),
    Metric("perplexity_intent", "perplexity, intent given", LIKELIHOOD, "low"),
    Metric("bits_per_byte_behind", "bits per byte behind the first model (paired)", LIKELIHOOD, "low"),
    Metric("end_precision", "precision of the end", TERMINATION, "high"),
    Metric("end_recall", "recall of the end", TERMINATION, "high"),
    Metric("end_f1", "F1 of the end", TERMINATION, "high"),
    Metric("end_f1_behind", "F1 behind the first model (paired)", TERMINATION, "low"),
    Metric("end_calibration_error", "calibration error of p(end)", TERMINATION, "low"),
    Metric("end_brier", "Brier score of p(end)", TERMINATION, "low"),
    Metric("naturalness_auc", "AUC, n-gram classifier", NATURALNESS, "0.5"),
    Metric("naturalness_auc_encoder", "AUC, fine-tuned encoder", NATURALNESS, "0.5"),
    Metric("naturalness_auc_detector", "AUC, detector", NATURALNESS, "0.5"),
    Metric("first_turn_diversity", "first turns, 1 - Jaccard", DIVERSITY, "human"),
    Metric("distinct_1", "distinct-1", DIVERSITY, "human"),
    Metric("distinct_2", "distinct-2", DIVERSITY, "human"),
    Metric("distinct_3", "distinct-3", DIVERSITY, "human"),
    Metric("mtld", "MTLD", DIVERSITY, "human"),
    Metric("self_bleu", "self-BLEU", DIVERSITY, "human"),
    Metric("topic_diversity", "topics, 1 - cosine", DIVERSITY, "human"),
    Metric("intent_overlap", "overlap of a turn with the intent", INTENT, "human"),
    Metric("intent_coverage", "share of the intent said in all", INTENT, "human"),
    Metric("rounds", "rounds", HABITS, "human"),
    Metric("ended_by_user", "conversations the user ended", HABITS, "high"),
    Metric("words_per_turn", "words per turn", HABITS, "human"),
    Metric("tokens_per_turn", "tokens per turn", HABITS, "human"),
    Metric("questions", "turns with a question mark", HABITS, "human"),
    Metric("greetings_thanks", "turns that greet or thank", HABITS, "human"),
    Metric("typos", "misspelt words", HABITS, "human"),
    Metric("small_first_letter", "turns starting with a small letter", HABITS, "human"),
    Metric("repeated_turns", "turns repeated word for word", HABITS, "human"),
    Metric("role_drift", "turns speaking as the assistant", HABITS, "low"),
    Metric("rounds_distance", "rounds, W1", DISTANCE, "low"),
    Metric("words_per_turn_distance", "words per turn, W1", DISTANCE, "low"),
    Metric("tokens_per_turn_distance", "tokens per turn, W1", DISTANCE, "low"),
    Metric("questions_distance", "question marks", DISTANCE, "low"),
    Metric("greetings_thanks_distance", "greetings and thanks", DISTANCE, "low"),
    Metric("typos_distance", "misspelt words", DISTANCE, "low"),
    Metric("small_first_letter_distance", "small first letters", DISTANCE, "low"),
    Metric("repeated_turns_distance", "repeated turns", DISTANCE, "low"),
    Metric("role_drift_distance", "role drift", DISTANCE, "low"),
)
