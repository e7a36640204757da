# ruff: noqa: INP001, ANN001, ANN003, ANN201 - a file as people write it, for a ConfigMap
"""A reward function of one's own, for examples/grpo.yaml: called with a list of answers, it returns one number for each."""


def lower_case(completions, **_columns):
    """Share of letters that are in lower case; 0 for an answer without letters."""
    scores = []
    for completion in completions:
        text = completion if isinstance(completion, str) else completion[-1]["content"]
        letters = [letter for letter in text if letter.isalpha()]
        scores.append(sum(letter.islower() for letter in letters) / len(letters) if letters else 0.0)
    return scores
