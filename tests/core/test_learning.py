"""What engines report becomes speeds: soon, steadily, and not upset by one odd answer."""

import random

import pytest

from herd.core.learning import Length, Machine, Observation, Speeds, expected_tokens, prior

GIB = 1024**3
TRUE = {"start": 0.08, "prompt": 0.0004, "prompt_more": 0.0002, "token": 0.011, "token_more": 0.002}


def seen(rng, noise=0.05, **changes):
    """One observation of a machine with TRUE speeds."""
    tokens, answer, beside = rng.randint(50, 4000), rng.randint(20, 600), rng.uniform(0, 3)
    prompt_s = TRUE["start"] + tokens * (TRUE["prompt"] + TRUE["prompt_more"] * beside)
    answer_s = (answer - 1) * (TRUE["token"] + TRUE["token_more"] * beside)
    told = {
        "prompt_tokens": tokens, "prompt_s": prompt_s * rng.uniform(1 - noise, 1 + noise), "prompt_others": beside,
        "answer_tokens": answer, "answer_s": answer_s * rng.uniform(1 - noise, 1 + noise), "answer_others": beside,
    }  # fmt: skip
    return Observation(**{**told, **changes})


def taught(count, speeds=None, **changes) -> Speeds:
    rng, speeds = random.Random(1), speeds or prior(5 * GIB)
    for _ in range(count):
        speeds = speeds.after(seen(rng, **changes))
    return speeds


def test_speeds_and_their_fall_with_company_are_learned_from_some_tens_of_answers():
    """Prefill, decode and how both fall: four numbers, told apart because company varies."""
    pace = taught(80).pace
    assert pace.prompt_s == pytest.approx(TRUE["prompt"], rel=0.1)
    assert pace.token_s == pytest.approx(TRUE["token"], rel=0.1)
    assert pace.prompt_fall == pytest.approx(0.5, abs=0.15)
    assert pace.token_fall == pytest.approx(2 / 11, abs=0.06)


def test_a_handful_of_answers_is_better_than_the_guess():
    """The requests of the first minutes after a start are somebody's, too."""
    guess, pace = prior(5 * GIB).pace, taught(5).pace
    for tokens in (500, 2000):
        true = TRUE["start"] + TRUE["prompt"] * tokens
        assert abs(pace.prefill(tokens) - true) < abs(guess.prefill(tokens) - true)
    assert pace.prefill(2000) == pytest.approx(TRUE["start"] + TRUE["prompt"] * 2000, rel=0.25)


def test_one_answer_that_took_ten_times_as_long_moves_little():
    """A laptop's lid, a swap, a full disk: no reason to leave a node for the day."""
    speeds = taught(60)
    odd = seen(random.Random(9))
    after = speeds.after(Observation(prompt_tokens=odd.prompt_tokens, prompt_s=10 * odd.prompt_s, prompt_others=1.0,
                                     answer_tokens=odd.answer_tokens, answer_s=10 * odd.answer_s))  # fmt: skip
    assert after.pace.prefill(1000) == pytest.approx(speeds.pace.prefill(1000), rel=0.15)
    assert after.pace.token_s == pytest.approx(speeds.pace.token_s, rel=0.15)


def test_a_machine_that_became_twice_as_slow_is_noticed():
    """Heat, or another user of the GPU: the past must not outweigh the present."""
    rng, speeds = random.Random(3), taught(100)
    for _ in range(60):
        told = seen(rng)
        speeds = speeds.after(Observation(prompt_tokens=told.prompt_tokens, prompt_s=2 * told.prompt_s,
                                          prompt_others=told.prompt_others, answer_tokens=told.answer_tokens,
                                          answer_s=2 * told.answer_s, answer_others=told.answer_others))  # fmt: skip
    assert speeds.pace.token_s == pytest.approx(2 * TRUE["token"], rel=0.2)


def test_a_first_answer_that_was_wrong_by_a_thousand_times_is_forgotten_soon():
    """The guess is scaled by the first answer; a fit that is sure of that scale would call all the others outliers."""
    wrong = Observation(prompt_tokens=20, prompt_s=0.1, answer_tokens=14, answer_s=0.0003)
    right = Observation(prompt_tokens=20, prompt_s=0.01, answer_tokens=40, answer_s=0.3)
    speeds = prior(2_000_000_000).after(wrong)
    for _ in range(12):
        speeds = speeds.after(right)
    assert speeds.pace.answer(39) == pytest.approx(0.3, rel=0.05)
    assert speeds.pace.prefill(20) == pytest.approx(0.01, rel=0.2)


def test_prompts_of_one_length_do_not_drive_a_speed_away_from_what_is_seen():
    """Start and tokens cannot be told apart then, and what the start may not give below 0 the tokens must not take."""
    rng = random.Random(5)
    speeds = prior(2_000_000_000)
    for _ in range(200):
        prompt_s = 0.01 * rng.choice((0.005, 0.7, 1.0, 1.5))
        speeds = speeds.after(Observation(prompt_tokens=rng.randint(15, 20), prompt_s=prompt_s))
        assert speeds.pace.prefill(17) < 0.1
    assert speeds.pace.prefill(17) < 0.015


def test_company_slows_a_prompt_at_most_by_its_whole_again_and_again():
    """A share of a slope that is next to nothing may be any number."""
    speeds = prior(2_000_000_000)
    for others in (0.0, 1.0, 2.0) * 20:
        speeds = speeds.after(Observation(prompt_tokens=17, prompt_s=0.05 + 0.05 * others, prompt_others=others))
    assert speeds.pace.prompt_fall <= 2.0


def test_a_load_and_a_reload_from_the_file_cache_are_two_numbers():
    """The second is the disk left out."""
    speeds = prior(5 * GIB)
    for _ in range(5):
        speeds = speeds.after(Observation(load_s=9.0)).after(Observation(load_s=2.0, reload=True))
    assert speeds.pace.load_s == pytest.approx(9.0, rel=0.1)
    assert speeds.pace.reload_s == pytest.approx(2.0, rel=0.2)


def test_an_answer_that_says_nothing_changes_nothing_but_the_count():
    """Engines that report no times must not teach zeros."""
    speeds = prior(5 * GIB)
    after = speeds.after(Observation())
    assert (after.pace.load_s, after.pace.prompt_s, after.pace.token_s) == (
        speeds.pace.load_s, speeds.pace.prompt_s, speeds.pace.token_s,
    )  # fmt: skip


def test_a_machine_tells_of_a_model_that_it_was_not_yet_seen_with():
    """Disk and GPU are the same for all models: one load tells of the next."""
    machine, paper = Machine(1008e9, "nvidia"), prior(10 * GIB, 1008e9, "nvidia").pace
    for _ in range(8):
        small = prior(5 * GIB, 1008e9, "nvidia").pace
        machine = machine.after(
            Observation(load_s=3 * small.load_s, prompt_tokens=1000, prompt_s=2 * small.prefill(1000),
                        answer_tokens=101, answer_s=0.5 * small.answer(100)), 5 * GIB,
        )  # fmt: skip
    pace = machine.expects(10 * GIB).pace
    assert pace.load_s == pytest.approx(3 * paper.load_s, rel=0.1)
    assert pace.prompt_s == pytest.approx(2 * paper.prompt_s, rel=0.1)
    assert pace.token_s == pytest.approx(0.5 * paper.token_s, rel=0.1)


def test_an_answers_length_is_that_of_its_tag_then_of_its_model_then_a_constant():
    """The more was seen of the nearer kind, the more it counts; the client's limit bounds it."""
    model, tag = Length(), Length()
    assert expected_tokens(model) == 200.0
    for _ in range(100):
        model, tag = model.after(400), tag.after(30)
    assert expected_tokens(model) == pytest.approx(400, rel=0.06)
    assert expected_tokens(model, tag) == pytest.approx(30, rel=1.0)
    assert expected_tokens(model, max_tokens=64) == 64.0
    assert expected_tokens(model, Length()) == expected_tokens(model)
