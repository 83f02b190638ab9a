"""Train a language model with iterative KTO, prove it better, and release it.

The command line is the interface: `kto-release train | eval | publish | demo | verify`.
"""

__version__ = "0.1.0"
