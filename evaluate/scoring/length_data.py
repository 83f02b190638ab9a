"""What alpaca_eval's length control needs beside the judgements: the judgements of two gamed baselines.

`df_gamed.csv` of the data set tatsu-lab/alpaca_eval holds, for each of the 805 instructions, how hard it is and how the
official judge liked GPT-4's answers when they were asked to be concise and to be verbose. alpaca_eval downloads the
newest one after all judging is paid; here it comes first, at a pinned revision, and its digest is checked.
"""

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from kto_release.errors import DataError, HubError, KtoReleaseError
from kto_release.evaluate.instructions import fetch
from kto_release.positions import COUNT

if TYPE_CHECKING:
    import pandas as pd

FILE = "df_gamed.csv"
SHA256 = "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d"
COLUMNS = ["preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"]
GAMED_WEIGHT = 0.1
"""Weight of a gamed baseline's row, where the model's row weighs one: alpaca_eval's 0.2 over two baselines."""


class LcData(NamedTuple):
    """The data of the length control."""

    gamed: "pd.DataFrame"
    """Columns as COLUMNS; preference in [0, 1]."""
    difficulty: npt.NDArray[np.float64]
    """By position, shape (805,)."""
    sha256: str
    """Of the file's bytes."""

    @property
    def official(self) -> bool:
        """Whether this is the file that the leaderboard was computed with."""
        return self.sha256 == SHA256


def load_lc_data(path: Path | None) -> LcData:
    """The data in a file, or (null) the official one from the Hub. Raises `HubError` or `DataError`."""
    return fetch_lc_data() if path is None else read_lc_data(path)


def fetch_lc_data() -> LcData:
    """The official data, from the Hub at the pinned revision or its cache. Raises `HubError` or `DataError`."""
    try:
        path = fetch(FILE)
    except HubError as error:
        todo = "connect to the Hub once, or give --lc-data FILE, or score without it: --no-lc"
        raise HubError(error.problem, todo=todo) from None
    data = read_lc_data(path)
    if not data.official:
        raise DataError(
            f"{FILE} from the Hub has sha256 {data.sha256}",
            expected=SHA256,
            todo="remove it from the Hub's cache and try again; do not score with it",
        )
    return data


def read_lc_data(path: Path) -> LcData:
    """The data in a file of the form of `df_gamed.csv`. Raises `DataError`."""
    import pandas as pd

    try:
        content = path.read_bytes()
        frame = pd.read_csv(io.BytesIO(content))
    except FileNotFoundError:
        raise DataError(f"no such file: {str(path)!r}", expected=f"alpaca_eval's {FILE}") from None
    except (OSError, ValueError) as error:
        raise _wrong(path, str(error).splitlines()[0]) from None
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise _wrong(path, f"no column {', '.join(map(repr, missing))}")
    frame = frame[COLUMNS]
    if not all(frame[name].dtype.kind in "if" and np.isfinite(frame[name]).all() for name in COLUMNS[:-1]):
        raise _wrong(path, "values that are no numbers")
    if frame["not_gamed_baseline"].dtype != bool or frame["not_gamed_baseline"].any():
        raise _wrong(path, "not_gamed_baseline is not False everywhere")
    if not frame["preference"].between(0, 1).all():
        raise _wrong(path, "a preference outside [0, 1]")
    first = frame.drop_duplicates("index")
    if first["index"].tolist() != list(range(COUNT)):
        raise _wrong(path, f"positions that are not 0 to {COUNT - 1} in order")
    return LcData(frame, first["instruction_difficulty"].to_numpy(float), hashlib.sha256(content).hexdigest())


def _wrong(path: Path, problem: str) -> KtoReleaseError:
    return DataError(
        f"{str(path)!r} can't control for length: {problem}",
        expected=f"alpaca_eval's {FILE}, with the columns {', '.join(COLUMNS)}",
        todo="leave out --lc-data to take it from the Hub, or score without it: --no-lc",
    )
