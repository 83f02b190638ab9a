"""Feedback: rows of any layout, from files or the Hub, as prompt messages, completion and label."""
