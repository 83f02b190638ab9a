"""Recipes that ship with kto-release, and the quickstart's own feedback."""
