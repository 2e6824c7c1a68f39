"""Figures of a loop, its health against people and the first iteration, and when it is over."""

import pytest

from selfplay.errors import ConfigError
from selfplay.loop.config import HEALTH, Limit, LoopConfig, StopRules
from selfplay.loop.health import alarms, check_limits, unchecked
from selfplay.loop.metrics import NAMES, MetricValue, by_iteration
from selfplay.loop.stopping import out_of_budget, spent, without_gain
from selfplay.recipe import validated


def scores(*values, name="mt-bench", spread=0.1):
    """A score an iteration, from 0 on."""
    return {number: {name: MetricValue(value, value - spread, value + spread)} for number, value in enumerate(values)}


def test_figures_of_an_iteration_stand_together_with_peoples():
    found = by_iteration([
        (0, {"bits_per_byte": [0.8, 0.7, 0.9]}),
        (1, {"rounds": 8, "conversations": 400}),
        (1, {"rounds": [8.1, 7.9, 8.3], "eval_loss": None, "people": {"rounds": [6.5, 6.4, 6.6], "mtld": 60}}),
    ])  # fmt: skip
    assert found[0] == {"bits_per_byte": MetricValue(0.8, 0.7, 0.9)}
    assert found[1] == {"rounds": MetricValue(8.1, 7.9, 8.3, 6.5), "conversations": MetricValue(400)}
    told = [
        str(value)
        for value in (
            MetricValue(0.8, 0.7, 0.9),
            MetricValue(1234),
            MetricValue(12.345),
            MetricValue(232.11, 200, 260.5),
            MetricValue(0.5),
        )
    ]
    assert told == ["0.800 [0.700, 0.900]", "1,234", "12.35", "232.1 [200.0, 260.5]", "0.500"]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (Limit(metric="rounds", min=6), [(1, False), (2, False), (3, True)]),
        (Limit(metric="rounds", relative_to="human", min=0.9, max=1.1), [(1, True), (2, False), (3, True)]),
        # The first iteration has none before it.
        (Limit(metric="rounds", relative_to="first_iteration", min=0.75), [(2, False), (3, True)]),
        (Limit(metric="rounds", relative_to="first_iteration", max=0.9), [(2, False), (3, False)]),
        (Limit(metric="mtld", min=1), []),  # a figure that is not measured is no alarm
    ],
)  # fmt: skip
def test_a_limit_is_on_the_figure_or_its_ratio_to_peoples_or_the_first(limit, expected):
    found = {0: {"bits_per_byte": MetricValue(1)}} | {
        number: {"rounds": MetricValue(value, people=7)} for number, value in ((1, 8), (2, 7), (3, 5))
    }
    assert [(one.iteration, one.alarm) for one in check_limits(found, [limit])] == expected


def test_alarms_of_one_iteration_the_ones_that_stop_first():
    found = {1: {"rounds": MetricValue(2, people=8)}, 2: {"rounds": MetricValue(1, people=8)}}
    limits = [
        Limit(metric="rounds", relative_to="human", min=0.5),
        Limit(metric="rounds", relative_to="first_iteration", min=0.7, action="stop"),
    ]
    told = [str(one) for one in alarms(check_limits(found, limits), 2)]
    assert told == [
        "rounds is 0.5 of the first (1, 2), below its minimum, 0.7",
        "rounds is 0.125 of people's (1, 8), below its minimum, 0.5",
    ]
    assert [one.limit.action for one in alarms(check_limits(found, limits), 1)] == ["warn"]
    high = check_limits({1: {"rounds": MetricValue(9)}}, [Limit(metric="rounds", min=1, max=8)])
    assert str(high[0]) == "rounds is 9, above its maximum, 8"


def collapsed(n):
    """What is left of a loop on its own output in iteration n: each figure of the health checks drifts."""
    people = {"distinct_2": 0.3, "words_per_turn": 8.0, "rounds": 7.0, "naturalness_auc": 0.5}
    users = {
        "distinct_2": 0.3 * 0.6**n,
        "words_per_turn": 8 * 0.6**n,
        "rounds": 7 * 0.6**n,
        "ended_by_user": 0.9 * 0.6**n,
    }
    figures = {
        **users,
        "naturalness_auc": min(1.0, 0.5 + 0.25 * n),
        "bits_per_byte": 0.8 * 1.1**n,
        "human_share": 0.4 - 0.2 * n,
    }
    return {name: MetricValue(value, people=people.get(name)) for name, value in figures.items()}


def test_every_default_limit_meets_a_collapse_and_none_a_loop_that_stays_as_it_is():
    assert not [one for one in check_limits({n: collapsed(0) for n in range(4)}, HEALTH) if one.alarm]
    met = {one.limit for one in check_limits({n: collapsed(n) for n in range(4)}, HEALTH) if one.alarm}
    assert met == set(HEALTH)
    assert {limit.metric for limit in HEALTH} == {
        "distinct_2", "words_per_turn", "rounds", "ended_by_user", "naturalness_auc", "bits_per_byte", "human_share",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "patience", "over"),
    [
        ((5.0, 5.5), 1, False),  # better, beyond the interval
        ((5.0, 5.05), 1, True),
        ((5.0, 4.0), 1, True),
        ((5.0, 5.05), 2, False),
        ((5.0, 5.05, 5.02), 2, True),
        ((5.0, 5.05, 5.5), 2, False),
        ((5.0, 6.0, 5.5), 1, True),  # behind the best one
        ((5.0, 6.0, 5.5, 5.5), 3, False),
        ((5.0,), 1, False),
    ],
)
def test_a_loop_is_over_where_its_score_gains_nothing_beyond_its_interval(values, patience, over):
    rules = StopRules(no_gain_in="mt-bench", patience=patience)
    assert (without_gain(rules, scores(*values), len(values) - 1) is not None) == over


def test_held_out_loss_gains_by_its_paired_difference():
    rules = StopRules(no_gain_in="bits_per_byte")
    found = scores(0.80, 0.79, name="bits_per_byte")
    found[1]["gain"] = MetricValue(0.01, 0.002, 0.018)
    assert without_gain(rules, found, 1) is None
    found[1]["gain"] = MetricValue(0.001, -0.002, 0.004)
    assert without_gain(rules, found, 1) == (
        "stop.no_gain_in: bits_per_byte 0.790 [0.690, 0.890], gain 0.0010 [-0.0020, 0.0040] is no gain for 1 iterations"
    )
    assert without_gain(StopRules(), found, 1) is None


def test_a_figure_that_is_no_number_is_an_alarm_and_one_that_is_missing_is_said():
    limits = [Limit(metric="rounds", min=1), Limit(metric="mtld", relative_to="human", min=0.1)]
    found = {1: {"rounds": MetricValue(float("nan"))}}
    assert [str(one)[:13] for one in alarms(check_limits(found, limits), 1)] == ["rounds is nan"]
    assert unchecked(found, limits, 1) == ["mtld"]
    assert unchecked(found, limits, 0) == []


def test_budgets():
    tokens, hours = spent([(1800, {"tokens": 700}), (1800, {"tokens": None}), (3600, {"kept": 3})])
    assert (tokens, hours) == (700, 2)
    assert out_of_budget(StopRules(max_tokens=701, max_hours=2.1), tokens, hours) is None
    assert "700 of 700 tokens are spent" in out_of_budget(StopRules(max_tokens=700), tokens, hours)
    assert "2.00 of 2 hours are spent" in out_of_budget(StopRules(max_hours=2), tokens, hours)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"health": [{"metric": "distinct_3", "min": 1}]}, "no metric 'distinct_3'; there are bits_per_byte"),
        ({"health": [{"metric": "bits_per_byte", "relative_to": "human", "min": 1}]}, "data has no bits_per_byte"),
        ({"health": [{"metric": "rounds"}]}, "limits nothing; give min, max or both"),
        ({"health": [{"metric": "mt-bench", "min": 3}]}, "no metric 'mt-bench'"),  # nobody judges
        ({"stop": {"no_gain_in": "rounds"}}, "stop.no_gain_in: no score 'rounds'; there are bits_per_byte"),
        ({"stop": {"max_token": 3}}, "stop.max_token: unknown key"),
    ],
)  # fmt: skip
def test_rules_that_could_never_be_met_are_refused(settings, told):
    with pytest.raises(ConfigError, match="cannot be used") as refused:
        validated(LoopConfig, settings, "recipe")
    assert told in str(refused.value)


def test_a_judges_score_may_be_limited_and_waited_for():
    bench = {"judge": "gpt-4.1", "sets": ["mt-bench", "my/questions.yaml"]}
    health = [{"metric": "questions", "relative_to": "first_iteration", "min": 0.8, "action": "stop"}]
    config = validated(LoopConfig, {"bench": bench, "health": health, "stop": {"no_gain_in": "mt-bench"}}, "recipe")
    assert config.health[0].metric == "questions"
    assert "questions" not in NAMES
