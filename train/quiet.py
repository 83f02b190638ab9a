"""Keep the libraries' progress bars and advice out of our output; their warnings stay."""


def quiet_libraries() -> None:
    """Only warnings and errors of transformers, datasets and huggingface_hub reach the terminal."""
    import datasets
    import huggingface_hub.utils
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    huggingface_hub.utils.disable_progress_bars()
