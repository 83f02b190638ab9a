"""Several evaluations beside each other: comparison.json, and a page with all answers to each question."""
