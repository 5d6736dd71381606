"""What the start of a run says of a learned reward."""

from grpo.verifiers.scale import scale_words, unbounded


def test_a_reward_model_has_no_full_marks():
    assert unbounded("reward_model") and unbounded("reward_model=0.5") and not unbounded("math_answer")
    assert scale_words(["math_answer=0", "reward_model"], "keep", 1.0) == []
    (said,) = scale_words(["reward_model"], "keep", 0.5)
    assert said.startswith("reward_model says what is correct") and "a reward of 0.5 or more" in said


def test_a_cut_response_that_beats_a_finished_one_is_said():
    (said,) = scale_words(["math_answer=0", "reward_model"], "zero", 1.0)
    assert said.startswith("warning: --truncated zero") and "--truncated keep" in said
    assert scale_words(["math_answer", "reward_model=0"], "zero", 1.0) == []  # it is only logged
