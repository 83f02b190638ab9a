"""`kto-release eval --calibrate`: what a judge's numbers mean on the official scale."""
