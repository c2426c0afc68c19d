"""What the recipe of ``fastnn train digits`` reaches."""

import statistics

import pytest

from fastnn import cli

SEEDS = range(10)


@pytest.mark.long
def test_digits_median_of_ten_seeds(tmp_path, capsys):
    accuracies = []
    for seed in SEEDS:
        assert cli.main(["train", "digits", "--quiet", "--seed", str(seed), "--out", str(tmp_path)]) == 0
        words = capsys.readouterr().out.split()
        assert words[:2] == ["test", "accuracy"]
        accuracies.append(float(words[2]))
    median = statistics.median(accuracies)
    with capsys.disabled():
        print(
            f"\ndigits: test accuracy {median:.4f}, median of {len(SEEDS)} seeds, {min(accuracies)}..{max(accuracies)}"
        )
    assert median >= 0.975
