"""alpaca_eval's own regression with a given C, which resamples are held to."""

import warnings

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]


def refit(preferences: Floats, features: Floats, weights: Floats, regularization: float) -> Floats:
    """Coefficients of the regression with C given instead of cross-validated.

    `features` are the three columns of its design matrix, `preferences` in [0, 1], `weights` one number per row.
    """
    from alpaca_eval.metrics.glm_winrate import fit_LogisticRegressionCV
    from sklearn import config_context

    frame = pd.DataFrame(features, columns=["length", "difficulty", "model"]).assign(preference=preferences)
    with config_context(enable_metadata_routing=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn deprecates what alpaca_eval asks for
        model = fit_LogisticRegressionCV(
            frame,
            "preference",
            is_ytrue_proba=True,
            n_splits=0,
            C=regularization,
            sample_weight=pd.Series(weights),
        )
    return np.asarray(model.coef_[0], float)
