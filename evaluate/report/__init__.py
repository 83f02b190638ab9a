"""What a reader sees of an evaluation: the summary on the console, and report.html."""
