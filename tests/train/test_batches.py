"""Batches: every row once an epoch, within the budget, as many for each process, the same again for the same seed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.train.batches import Batches, Composition, plan_batches, tokens_of
from selfplay.train.config import TrainConfig

LENGTHS = [10 + (n * 7919) % 300 for n in range(1000)]


def rows_of(batches):
    return sorted(row for batch in batches for row in batch)


@pytest.mark.parametrize("packed", [False, True])
def test_an_epoch_has_every_row_once_within_the_budget_and_little_padding(packed):
    batches = list(Batches(LENGTHS, Composition(2048, packed=packed)))
    assert rows_of(batches) == list(range(1000))
    taken = [tokens_of(batch, LENGTHS, packed) for batch in batches]
    assert max(taken) <= 2048
    assert sum(taken) / sum(LENGTHS) < 1.1
    assert sum(LENGTHS) / 2048 / len(batches) > 0.85


@pytest.mark.parametrize("packed", [False, True])
def test_epochs_differ_in_order_but_not_in_number_and_repeat_exactly(packed):
    batches = Batches(LENGTHS, Composition(1024, packed=packed, seed=1), epochs=3)
    epochs = []
    for epoch in (0, 1, 2, 0):
        batches.set_epoch(epoch)
        epochs.append(list(batches))
        assert len(epochs[-1]) == len(batches)
        assert rows_of(epochs[-1]) == list(range(1000))
    assert epochs[0] == epochs[3] != epochs[1]


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("packed", [False, True])
def test_a_step_is_the_conversations_the_recipe_names_over_all_processes(processes, packed):
    batches = Batches(LENGTHS, Composition(2048, processes, per_step=128, packed=packed))
    a_step = batches.accumulate * processes
    found = list(batches)
    for start in range(0, len(found) - a_step, a_step):
        assert sum(map(len, found[start : start + a_step])) == 128
    assert max(tokens_of(batch, LENGTHS, packed) for batch in found if len(batch) > 1) <= 2048
    assert len(found) % processes == 0
    assert rows_of(found) == list(range(1000))
    assert batches.accumulate <= 1.4 * sum(LENGTHS) / 1000 * 128 / 2048 / processes + 2


def test_a_run_as_long_as_its_steps_keeps_to_its_batches():
    values = {
        "role": "user",
        "base": "x",
        "data": {"datasets": ["sample"]},
        "output_dir": "o",
        "compute": {"packing": True},
    }
    config = TrainConfig.model_validate({**values, "optim": {"max_steps": 200, "max_tokens_per_batch": 2048}})
    batches, steps = plan_batches(config, LENGTHS)
    assert steps == 200
    for epoch in range(-(-200 // len(batches))):
        batches.set_epoch(epoch)
        assert len(list(batches)) == len(batches)
    config = TrainConfig.model_validate({**values, "optim": {"epochs": 1.5, "max_tokens_per_batch": 2048}})
    batches, steps = plan_batches(config, LENGTHS)
    assert steps == -(-len(batches) * 3 // 2)


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=60),
    processes=st.integers(1, 4),
    per_step=st.none() | st.integers(1, 20),
    packed=st.booleans(),
    budget=st.integers(64, 600),
    epochs=st.integers(1, 3),
)
def test_whatever_the_rows_each_process_gets_as_many_batches_and_no_row_is_lost(
    lengths, processes, per_step, packed, budget, epochs
):
    per_step = None if per_step is None else per_step * processes
    batches = Batches(lengths, Composition(budget, processes, per_step, packed), epochs)
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        found = list(batches)
        assert len(found) == len(batches)
        assert len(found) % processes == 0
        assert all(found)
        assert set(rows_of(found)) == set(range(len(lengths)))
        for batch in found:
            assert len(batch) == 1 or tokens_of(batch, lengths, packed) <= budget
