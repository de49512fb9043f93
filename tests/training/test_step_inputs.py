"""The numbers of a step: which steps are of one kind, and every number in an array of the device."""

from gpucnn.optim.averages import EMA, AverageUpdate, Lookahead
from gpucnn.training.step_inputs import StepInputs


def inputs(step: int, rates: dict[str, float]) -> StepInputs:
    averages = (Lookahead(3, 7), EMA(0.9))
    return StepInputs(step, rates, tuple(average.update_at(step) for average in averages))


def test_steps_that_differ_in_numbers_alone_are_of_one_kind() -> None:
    assert inputs(0, {"filter": 0.1}).kind == inputs(1, {"filter": 0.2}).kind
    assert inputs(0, {"filter": 0.1}).kind != inputs(0, {"bias": 0.1}).kind  # another group is frozen
    assert inputs(1, {}).kind != inputs(2, {}).kind  # Lookahead moves and resets the weights
    assert len({inputs(step, {}).kind for step in (1, 2, 6)}) == 3  # after the last step it resets alone


def test_every_number_gets_a_place_of_its_own() -> None:
    places: dict[str, float] = {}

    def place(name: str, value: float) -> str:
        assert name not in places
        places[name] = value
        return f"<{name}>"

    step = inputs(2, {"filter": 0.1, "bias": 0.2})
    placed = step.on_device(place, "<step>")
    assert placed.kind == step.kind
    assert placed.step == "<step>"
    assert [places[rate.strip("<>")] for rate in placed.learning_rates.values()] == [0.1, 0.2]
    assert [places[update.weight.strip("<>")] for update in placed.average_updates] == [
        update.weight for update in step.average_updates
    ]
    assert len(places) == 4


def test_an_average_that_stays_has_no_number() -> None:
    placed = StepInputs(0, {}, (AverageUpdate(copy_to_model=True),)).on_device(lambda name, value: name, "step")
    assert placed.average_updates == (AverageUpdate(copy_to_model=True),)
