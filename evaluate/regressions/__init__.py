"""Regressions: what training broke elsewhere, sample by sample, in lm-evaluation-harness or in logs."""
