"""The checks of a release, a file for each subject."""
