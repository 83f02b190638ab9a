"""What the stages write for each other: the records of a run, as strict models.

A record is written last and atomically, so its presence means that its stage is complete. Nothing in a record is a
path of this machine: paths are relative to the run directory.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, field_validator, model_validator


class Facts(BaseModel):
    """A part of a record; unknown keys are errors, NaN and infinities are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class Interval(Facts):
    """A measured value and how sure it is."""

    value: float
    low: float
    high: float
    n: int
    """How many observations stand behind it."""
    level: float = 0.95
    method: str
    """For example Wilson, or percentile bootstrap over instructions."""
    reliable: bool = True
    """False where the interval is known not to hold its level (few observations, values near 0 or 1)."""
    note: str | None = None

    def shown(self, scale: float = 1.0, digits: int = 1, sign: Literal["", "+"] = "") -> str:
        """Its bounds as a person reads them: 49.3 to 50.2; `sign` "+" is for differences."""
        low, high = (f"{scale * bound:{sign},.{digits}f}" for bound in (self.low, self.high))
        return f"{low} to {high}"


class Environment(Facts):
    """Where and with what a stage ran."""

    kto_release: str
    git_commit: str | None
    """Commit of kto-release's own checkout; null for an installed wheel."""
    git_dirty: bool | None
    python: str
    platform: str
    hardware: str
    """For example "2 x CPU" or "8 x NVIDIA H100 80GB"."""
    processes: int
    packages: dict[str, str]
    """Versions of the packages that matter."""


class ModelFacts(Facts):
    """A model: which one, and exactly which weights."""

    name: str
    """"initial", "iteration-2", or a Hub id or folder name."""
    hub_id: str | None
    """Hub id, where it is one; a local folder's card may name it."""
    revision: str | None
    """Commit on the Hub."""
    path: str | None
    """Folder relative to the run, for the models that the run made."""
    sha256: str
    """Digest of the weights: see `digests.weights_digest`."""
    dtype: str
    """dtype that the weights are stored in."""
    parameters: int


class LabelCounts(Facts):
    """Feedback counted by label."""

    desirable: int
    undesirable: int


class PartitionFacts(Facts):
    """The feedback of one iteration: what was read, and what became of it."""

    name: str
    source: list[str]
    """Hub id or file names (without folders)."""
    revision: str | None
    licenses: dict[str, str | None]
    """Licence by Hub id, as the data set's card states it."""
    sha256: str
    """Digest of the feedback as trained on: prompts, completions and labels in order."""
    kept: LabelCounts
    dropped: dict[str, LabelCounts]
    """By reason."""
    skipped: dict[str, int] = {}
    """Rows that are not used, by reason: neutral ones, and with data.bad_rows: skip those that can't be used."""
    unused: dict[str, int] = {}
    """Columns and message keys that hold no part of a conversation and were not read: in how many rows."""
    notes: dict[str, int] = {}
    """What else is to be known of answers that are trained on, with their number."""
    truncated: LabelCounts
    prompts: int
    tokens: int
    """Tokens of all prompts (each once) and completions."""
    longest: int
    lengths: dict[str, int] = {}
    """Tokens of prompt and completion together, at percentiles of the feedback: 5, 25, 50, 75 and 95."""
    duplicates: int
    overlaps: dict[str, int]
    """Prompts shared with the other partitions ("iteration 1", "held out"), and with AlpacaEval's instructions
    ("alpaca_eval"), which tells them by hashes."""


class TrainingFacts(Facts):
    """What the training of one iteration did."""

    steps: int
    epochs: int
    batch_size: int
    beta: float
    learning_rate: float
    desirable_weight: float
    undesirable_weight: float
    lora: dict[str, Any] | None
    precision: str
    max_length: int
    tokens_computed: int
    """Tokens that a forward pass was computed for, over all passes."""
    computed_by: str = "prompt trees"
    """Or "plain sequences", where trees are not right for the model."""
    computed_by_reason: str | None = None
    """What showed that trees are not right for it."""
    seconds: float
    """Wall time of the optimization, over all tries."""
    first: dict[str, float]
    """Metrics of the first step: loss is half the mean weight, and kl is 0, where the reference is right."""
    last: dict[str, float]
    """Metrics averaged over the last tenth of the steps."""


class Separation(Facts):
    """How well the log-ratio gained, log pi - log pi_initial, tells desirable held-out answers from others."""

    auc: Interval | None
    """Probability that a desirable answer gained more than an undesirable one, over all prompts; one half is chance.
    Null with fewer than 30 answers of either label."""
    length_auc: float | None
    """The same of the answer's length in tokens: what length alone would give."""
    within_lengths: float | None
    """The AUC of the log-ratio among answers of like length (fifths, weighted by their pairs)."""
    desirable: int
    undesirable: int


class HeldOut(NamedTuple):
    """The one measure of a model on held-out feedback that people are shown."""

    name: str
    """As a sentence has it."""
    interval: Interval
    of: str
    """What its n counts."""


class Probe(Facts):
    """The model after an iteration, on held-out feedback and a few prompts."""

    preference_accuracy: Interval | None
    """Share of held-out pairs whose desirable answer has the higher log pi - log pi_initial; null without pairs."""
    separation: Separation | None = None
    """Null without held-out feedback, and in records of before 0.2."""
    kl_initial: float | None
    """Mean of log pi - log pi_initial, in nats per answer, over answers that the model itself samples at temperature 1:
    an estimate of the KL divergence, without bias."""
    kl_previous: float | None
    """The same against the model that the iteration began with."""
    mean_length: float | None
    """Mean new tokens of such an answer."""
    ended: float | None
    """Share of those answers that end by themselves."""
    repetition: float | None
    """Share of 4-grams in an answer that occurred before in it, averaged."""
    answers: int
    """How many prompts were answered."""

    @property
    def auc(self) -> Interval | None:
        """Of the held-out thumbs."""
        return self.separation.auc if self.separation else None

    @property
    def held_out(self) -> HeldOut | None:
        """Preference accuracy where there are pairs, else the AUC of thumbs; None where neither was measured."""
        if self.preference_accuracy is not None:
            return HeldOut("preference accuracy", self.preference_accuracy, "pairs")
        return HeldOut("AUC", self.auc, "answers") if self.auc is not None else None


class IterationRecord(Facts):
    """`iteration-N/record.json`."""

    kind: Literal["iteration"] = "iteration"
    iteration: int
    finished: str
    """ISO 8601, UTC."""
    recipe_sha256: str
    """Digest of the recipe's identity."""
    template: str
    """Name of the chat template trained with."""
    template_sha256: str
    template_moment: str | None = None
    """When the run began, in UTC, for a template that prints the date; null: it prints none."""
    parent: ModelFacts
    """What this iteration started from."""
    reference: ModelFacts
    model: ModelFacts
    partition: PartitionFacts
    training: TrainingFacts
    probe: Probe
    logprobs: dict[str, float]
    """log pi of the saved fp32 model on held-out (else partition) rows, by the row's digest: what a reload must give
    again. The rows are in `rows.json` beside the record."""
    initial_logprobs: dict[str, float] = {}
    """The same by the initial model: with it, what a rounded model keeps of the training can be told."""
    environment: Environment


class JudgeFacts(Facts):
    """What judged: all of it determines the score."""

    kind: str
    model: str
    name: str
    """Short form for folder names and tables."""
    endpoint: str | None
    """Host of the API, without path or credentials."""
    prompt: str
    prompt_sha256: str
    swap: bool
    parameters: dict[str, Any]
    official: bool
    """Whether this is the judge behind the official leaderboard (gpt-4-1106-preview, recorded)."""
    orders_known: bool = True
    """Whether a judgement says in which order the answers were shown; recorded ones rarely do."""
    words: bool = False
    """Whether a verdict is read from the judge's words: a preference is then one answer, the other or a draw."""
    votes: int = 1
    """How often each question is asked; a preference is their share."""

    @model_validator(mode="before")
    @classmethod
    def _made_before(cls, data: Any) -> Any:
        """A record that does not say whether orders are known: of recorded judgements they are not."""
        if isinstance(data, dict) and "orders_known" not in data:
            return {**data, "orders_known": data.get("kind") != "recorded"}
        return data

    @property
    def settings(self) -> str:
        """The model and how it is asked, but for the prompt."""
        # A recorded judge's parameters say which judgements they are, not how they were made.
        parameters = self.parameters if self.orders_known else {}
        listed = ", ".join(f"{key}={value}" for key, value in sorted(parameters.items()))
        return f"{self.model} ({listed})" if listed else self.model


class GenerationFacts(Facts):
    """How the answers were made."""

    engine: str
    engine_version: str
    dtype: str
    temperature: float
    top_p: float
    top_k: int | None
    max_tokens: int
    seed: int
    samples: int
    seconds: float | None
    tokens: int | None
    chat_template_kwargs: dict[str, Any] = {}
    """Variables that the chat template was given."""


class ServedFacts(Facts):
    """What answered as the judge, by the endpoint's own word; null where it does not say."""

    model: str | None
    fingerprint: str | None
    provider: str | None
    judgements: int


class JudgingFacts(Facts):
    """How judging went: what the judgements behind a score do not show one by one."""

    served: list[ServedFacts]
    """Most judgements first; empty where nothing is known."""
    unreadable: float | None
    """Share of the judge's answers that held no verdict, those to questions that were asked again included."""
    cut_prompts: int
    """Questions of which the endpoint read fewer tokens than they can have."""
    price: float | None
    """USD of all judgements; null where it is not known."""
    trial: str | None = None
    """What the judge did with small questions whose answer is known; null where it was not asked them."""
    doubts: list[str]
    """In words: why the judgements may not be this judge's, or not of these answers."""


RATES = {"win_rate": "win rate", "length_controlled_winrate": "length-controlled win rate"}
"""What an evaluation measures, as alpaca_eval calls it and in words."""


OWN_LENGTH = "own_length_controlled_winrate"
OWN_LENGTH_NAME = "win rate at equal length (own set)"
"""Length control without AlpacaEval's difficulty, by its name in records and in words."""
INTERVAL_DOUBT = "the interval is not to be relied on"
"""How a doubt begins that is one of a score's interval, and not of the judgements."""


class Verdict(Facts):
    """Whether answers are better than those they are compared with, in words and with what stands behind them."""

    said: Literal["better", "worse", "not distinguishable"]
    points: Interval
    """By how much, in percentage points: above 0 is better."""
    p_value: float
    """Two-sided, by the sign-flip test over instructions."""
    won: int
    """Instructions whose answer is preferred."""
    lost: int
    drawn: int
    needed: dict[str, int] = {}
    """By points ("2", "5"): how many questions of this spread tell a true difference of so many, in four of five sets
    at p < 0.05. Empty where there is no spread."""
    doubts: list[str] = []
    """In words: why it is not to be relied on."""

    def in_words(self, *, reasons: bool = True) -> str:
        """The verdict on one line, and, where they are wanted, the reasons to doubt it last."""
        told = "; ".join(f"{count:,} questions like these would tell {points}" for points, count in self._needed())
        sure = "" if self.points.reliable else f", not to be relied on: {self.points.note}"
        words = (
            f"{self.said}{' (NOT to be relied on)' if self.doubts else ''}: {self.won} won, {self.lost} lost, "
            f"{self.drawn} drawn of {self.won + self.lost + self.drawn}; {self.points.value:+.1f} points "
            f"({self.points.shown(sign='+')}{sure}), {self.probability()}"
        )
        doubt = f"; not to be relied on: {'; '.join(self.doubts)}" if self.doubts and reasons else ""
        return f"{words}{f'; {told}' if told else ''}{doubt}"

    def probability(self) -> str:
        """The p-value as a person reads it."""
        return "p < 0.0002" if self.p_value < 0.0002 else f"p = {self.p_value:.2g}"

    def _needed(self) -> Iterator[tuple[str, int]]:
        for points, count in self.needed.items():
            yield f"{points} points", count


class Rate(NamedTuple):
    """One rate of an evaluation."""

    key: str
    """As alpaca_eval calls it."""
    name: str
    """In words."""
    value: float
    """Percent."""
    interval: Interval | None
    """Null where none is on record: such a rate is never shown as a measured one."""


class Scale(NamedTuple):
    """What two scores must share to stand side by side."""

    instructions: str
    """Digest of their texts."""
    reference: str
    """Digest of the answers that were compared with."""
    judge: str
    """Model, settings, prompt and orders."""


class EvalRecord(Facts):
    """`eval/<model>/<instructions>/<judge>/results.json`: a score with its n, its judge and its interval.

    The first block is named and defined as in alpaca_eval; rates are in percent.
    """

    kind: Literal["evaluation"] = "evaluation"
    finished: str
    score: str
    """The score's full name: benchmark, judge, prompt, order."""
    win_rate: float | None
    standard_error: float | None
    discrete_win_rate: float | None
    length_controlled_winrate: float | None
    n_total: int
    """Judgements that are scored."""
    n_missing: int
    n_failed: int
    avg_length: int | None
    partial: bool
    """Whether fewer than all instructions are scored, by the user's explicit wish."""
    model: ModelFacts | None
    """Null where recorded annotations were scored."""
    instructions: str
    instructions_sha256: str
    instructions_revision: str | None
    is_alpaca_eval: bool
    reference: str
    """Name of what the answers were compared with."""
    reference_sha256: str
    generation: GenerationFacts | None
    judge: JudgeFacts
    intervals: dict[str, Interval]
    """By the names above: win_rate, length_controlled_winrate."""
    variance: dict[str, float | None]
    """Of the win rate, in squared percent: instructions, generation, judge; null where not measured."""
    position_bias: float | None
    """Mean preference for the first place, minus one half; null where only one order was asked."""
    self_consistency: float | None
    """Share of pairs judged for the same answer in both orders."""
    answer_mass: dict[str, float] | None
    """Probability mass on the answer letters: mean, minimum, and the share of rows below the limit."""
    reliable: bool
    unreliable_because: list[str]
    """Reasons not to rely on the score, other than those under `gamed`."""
    screening: dict[str, int]
    """Flagged rows by kind."""
    gamed: list[str]
    """Reasons to think that the judge was gamed; empty: none found."""
    estimated: dict[str, Any] | None
    """The estimate on the official scale from a calibration, always labelled as such; null: no calibration."""
    environment: Environment
    answers_by: str | None = None
    """Generator of the answers, where recorded annotations name one."""
    n_wins: int | None = None
    n_wins_base: int | None = None
    n_draws: int | None = None
    no_length_control: str | None = None
    """Why there is no length-controlled rate."""
    lc_data_sha256: str | None = None
    """Digest of the data that the length-controlled rate was computed with."""
    regularization: float | None = None
    """The C that cross-validation chose for the length-controlled regression."""
    by_dataset: dict[str, Interval] = {}
    """Win rate within each collection of instructions."""
    inputs_sha256: str | None = None
    """Digest of everything that determines this record; null where recorded annotations were scored."""
    judging: JudgingFacts | None = None
    """How judging went; null where recorded annotations were scored."""
    own_length_controlled_winrate: float | None = None
    """Win rate at equal length on a set of one's own: alpaca_eval's regression without the difficulty. Its interval has
    the same name; null for AlpacaEval's set, for fewer than 20 instructions, and where it was not computed."""
    verdict: Verdict | None = None
    """Against the reference; null in records of earlier versions."""

    @field_validator("unreliable_because")
    @classmethod
    def _without_gamed(cls, reasons: list[str]) -> list[str]:
        """Records of earlier versions told here once more what `gamed` holds."""
        return [reason for reason in reasons if not reason.startswith("gamed: ")]

    @property
    def who(self) -> str:
        """Whose answers were judged: the one name of this evaluation."""
        return self.model.name if self.model else self.answers_by or "recorded answers"

    @property
    def doubts(self) -> list[str]:
        """Reasons not to rely on the judgements, and so on anything made of them; a score's interval has its own."""
        gamed = [f"gamed: {reason}" for reason in self.gamed]
        return gamed + [reason for reason in self.unreliable_because if not reason.startswith(INTERVAL_DOUBT)]

    @property
    def iteration(self) -> int | None:
        """0 for the initial model, N for iteration-N; null for any other model."""
        name = self.model.name if self.model else ""
        number = name.removeprefix("iteration-")
        return 0 if name == "initial" else int(number) if number != name and number.isdecimal() else None

    @property
    def age(self) -> tuple[int, str]:
        """What evaluations are ordered by: the initial model and strangers first, then the iterations."""
        return self.iteration or 0, self.who

    @property
    def scale(self) -> Scale:
        """Only scores of one scale may stand side by side."""
        judge = self.judge
        who = "official" if judge.official else f"{judge.settings}, prompt {judge.prompt_sha256}, swap {judge.swap}"
        if judge.words:
            who += f", verdicts in words, {judge.votes} of each"
        answered = sorted({served.model for served in self.judging.served if served.model}) if self.judging else []
        if answered not in ([], [judge.model]):
            who += f", answered by {', '.join(answered)}"
        return Scale(self.instructions_sha256, self.reference_sha256, who)

    def rates(self) -> Iterator[Rate]:
        """The rates that were measured."""
        for key, name in RATES.items():
            value = getattr(self, key)
            if value is not None:
                yield Rate(key, name, float(value), self.intervals.get(key))


class AnchorFacts(Facts):
    """A model whose official scores are known, and what another judge made of its stored answers."""

    name: str
    official_win_rate: float
    """As published: of all 805 instructions, in percent."""
    official_length_controlled_winrate: float
    win_rate: Interval
    """By this judge, on the sampled instructions, in percent."""
    compared: int
    """Instructions whose official judgement is stored too."""
    agreement: float | None
    """Share of these on which both judges favour the same answer."""


class OfficialMap(Facts):
    """A straight line from this judge's win rate to an official score, both as log odds, fitted to the anchors."""

    target: str
    """win_rate or length_controlled_winrate."""
    anchors: int
    intercept: float
    slope: float
    residual: float
    """Standard deviation of the anchors around the line, in log odds."""
    center: float
    """Mean of the anchors' own log odds."""
    spread: float
    """Their sum of squares around it."""
    low: float
    """Lowest of the anchors' win rates by this judge, in percent: beyond it the line is a guess."""
    high: float


class CalibrationRecord(Facts):
    """`eval/calibration/<judge>/calibration.json`: what a judge's number means on the official scale."""

    kind: Literal["calibration"] = "calibration"
    finished: str
    judge: JudgeFacts
    sample: int
    """How many instructions each anchor was judged on."""
    seed: int
    positions_sha256: str
    """Digest of the sampled positions."""
    n_failed: int
    anchors: list[AnchorFacts]
    rank_correlation: Interval | None
    """Spearman's, between the official win rate and this judge's, over the anchors; null with fewer than three."""
    kappa: Interval | None
    """Cohen's, between the two judges' verdicts on the same pair (model, draw, reference)."""
    mean_absolute_difference: Interval | None
    """Between the two judges' preferences for the same pair, in [0, 1]."""
    maps: list[OfficialMap]
    """Empty with fewer than four anchors."""
    environment: Environment


class WeightFacts(Facts):
    """`release/weights/record.json`: the published weights against the trained ones and the initial ones."""

    kind: Literal["weights"] = "weights"
    source_sha256: str
    """Digest of the trained fp32 weights that these were made from."""
    base_sha256: str
    """Digest of the initial model's weights that these were compared with."""
    sha256: str
    """Digest of the published weights."""
    requested: str
    """The dtype that the recipe asks for: one of those below, or base."""
    dtype: str
    """The published dtype: bfloat16, float16 or float32; of most values, where the base mixes several."""
    files: dict[str, str]
    """sha256 by name of the safetensors files."""
    bytes: int
    tensors: int
    parameters: int
    missing: list[str]
    """Tensors of the initial model that are absent (other than tied ones)."""
    unexpected: list[str]
    """Tensors that the initial model does not have."""
    wrong_shape: list[str]
    not_finite: list[str]
    """Tensors that hold a NaN or an infinity after rounding."""
    empty: list[str]
    """Tensors without a value, or all zeros where the initial model's are not."""
    trained_share: float
    """Share of the values that training changed (in fp32)."""
    changed_share: float
    """Share of the values that differ from the initial model's as published."""
    rounding: Literal["none", "nearest", "stochastic"] = "nearest"
    """How values were rounded to `dtype`; none: all of them were of it. Releases before 0.2 rounded to the nearest."""
    rounding_lost: float | None = None
    """Only in releases before 0.2: the sum of |trained - published| over that of |trained - initial|. It says little of
    the function: see `KeptFacts`."""


class KeptFacts(Facts):
    """`iteration-N/published/kept.json`: what the published weights keep of the training, measured in the function."""

    kind: Literal["kept"] = "kept"
    source_sha256: str
    """Digest of the trained weights."""
    sha256: str
    """Digest of the published weights."""
    published: dict[str, float]
    """log pi by the published weights, computed in fp32, by the row's digest."""
    kept: Interval | None
    """Slope of the published log-ratios (log pi - log pi_initial) on the trained ones, over the rows that training
    recorded: 1 where all that was learned is kept, 0 where nothing is. Null where training changed none of them."""
    noise: float
    """Root mean square of log pi_published - log pi_trained, in nats per answer."""


class ReloadFacts(Facts):
    """`release/weights/reload.json`: log-probabilities of the feedback that training recorded, by reloaded models."""

    kind: Literal["reload"] = "reload"
    source_sha256: str
    """Digest of the trained weights."""
    sha256: str
    """Digest of the published weights."""
    recorded: dict[str, float]
    """log pi by the row's digest, as training recorded it."""
    trained: dict[str, float]
    """By the trained weights, in fp32."""
    published: dict[str, float]
    """By the published weights, computed in fp32."""
    initial: dict[str, float]
    """By the initial model, in fp32: what the training moved away from."""


class ReleaseRecord(Facts):
    """`release/record.json`: what was sent, and where to."""

    kind: Literal["release"] = "release"
    finished: str
    repo_id: str
    endpoint: str
    commit: str
    tag: str | None
    private: bool
    pull_request: str | None
    release_sha256: str
    """Digest of the bundle's release.json."""
    files: int
    bytes: int
    verified: str
    """How what arrived was compared with what was meant."""
    environment: Environment
