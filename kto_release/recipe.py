"""The recipe: one YAML file that describes a whole run.

Precedence, in one sentence: `--set a.b=c` over the file over the default. Unknown keys are errors, and all problems
of a recipe are reported at once. `recipes/schema.json` is generated from these models, so editors complete them.
"""

import datetime as dt
import json
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

NOT_IDENTITY = {"identity": False}
"""Marks a field that changes how fast or how visibly a run trains, never what comes out of it."""


class Beside(Enum):
    """Marks a text that may name a file beside the recipe: `recipe_file` then makes its path absolute."""

    FILE = "by a file's ending, or ./ or ../ at its start"
    EXISTING = "the same, or by existing there"
    READ = "the same as FILE, or by being a file there, or a path to something there"


FileName = Annotated[str, Beside.FILE]
"""A file's name, or something else (a Hub id, a split, a template's name) that looks like none."""
Readable = Annotated[str, Beside.READ]
"""A name that is known, or a file of any ending."""
Location = Annotated[str, Beside.EXISTING]
"""A Hub id, or a file or folder."""


def _date_as_text(value: object) -> object:
    return value.isoformat() if isinstance(value, dt.date) else value  # YAML reads an unquoted date as one


class Section(BaseModel):
    """A frozen part of the recipe whose unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class ModelSection(Section):
    """The model that the run starts from."""

    base: Location
    """Hub id or local folder of the initial model."""
    revision: str | None = None
    """Branch, tag or commit of `base` on the Hub; null takes main, and the commit found is recorded."""
    template: FileName = "base"
    """Chat template: a name in templates/ (tulu_v2, chatml, zephyr, mistral, llama3), a .jinja file, or "base" to
    keep the base model's own."""
    trust_remote_code: bool = False
    """Run Python code that the model's repository carries. Only for repositories that you have read."""


COLUMN_ROLES = frozenset(
    [
        "id",
        "comment",
        "user",
        "prompt",
        "completion",
        "label",
        "score",
        "chosen",
        "rejected",
        "completions",
        "scores",
        "messages",
        "conversations",
        "system",
        "history",
        "tools",
        "origin",
    ]
)
"""What a column of feedback can be."""


class DataSection(Section):
    """The feedback."""

    source: Location | list[Location]
    """Hub data set id; or file, folder or glob of .jsonl, .ndjson, .json, .csv, .tsv (also .gz, .zst) or .parquet; or
    several of them."""
    revision: str | None = None
    """Branch, tag or commit of a Hub data set; null takes main, and the commit found is recorded."""
    config: str | None = None
    """Configuration of a Hub data set that has several; of a local clone of one: its folder."""
    data_dir: str | None = None
    """Folder inside the data set, or inside the source folder, that holds the files."""
    partitions: list[FileName] | int
    """One partition per iteration: names of splits, or of files; or a number to cut one split into that many parts."""
    split: str = "train"
    """The split that is cut where `partitions` is a number; of files, where their names or folders are of several
    splits (train-00000-of-00002.parquet)."""
    held_out: FileName | float | None = None
    """Feedback never trained on: a split, a file, or the share (0 to 0.5) of prompts to hold out; null: none."""
    format: Literal["auto", "pairs", "labels", "scores", "rated", "sharegpt"] = "auto"
    """Layout of a row; "auto" tells it from the columns."""
    columns: dict[str, str] = {}
    """Columns of your own: what each is (prompt, completion, label, score, chosen, rejected, messages, system, history,
    tools, id, user, comment, …), and its name, or its path with dots inside records:
    {completion: response.choices.0.message.content}. The id is shown instead of the row's number; comments are shown by
    `kto-release rows`."""
    labels: dict[str | int | float | bool, bool | None] = {}
    """Labels of your own: {good: true, bad: false}; null leaves the row out, and counts it. Then no other label is
    accepted; {}: true and false, or 1 and 0."""
    roles: dict[str, Literal["system", "user", "assistant", "tool"]] = {}
    """Other words for the roles of messages: {model: assistant, developer: system}."""
    ignore: list[str] = []
    """Columns, and keys of messages, to leave out; a * stands for any text. What is neither used nor metadata is an
    error until it is named here."""
    reasoning: Literal["keep", "strip", "error"] = "keep"
    """Thoughts of the assistant (reasoning_content, or <think> at the start of a text): trained as the chat template
    prints them, left out, or an error."""
    bad_rows: Literal["error", "skip"] = "error"
    """Rows that can't be used: all are named and nothing starts; or they are left out, counted by reason in the record,
    and listed in tokens/left_out.jsonl."""
    score_threshold: float | None = None
    """For scores: at least this is desirable, below is undesirable. Needed where rows carry scores."""
    max_rows: int | None = Field(default=None, ge=1)
    """Take only so many rows of each partition (the first ones), for a trial; null takes all. A held-out share is taken
    from these rows."""
    seed: int = Field(default=0, ge=0)
    """Seed of the cut into partitions and of the held-out share."""

    @field_validator("partitions")
    @classmethod
    def _some_partitions(cls, value: list[str] | int) -> list[str] | int:
        if isinstance(value, int) and value < 1:
            raise ValueError("the number of partitions must be at least 1")
        if isinstance(value, list) and (not value or len(set(value)) < len(value)):
            raise ValueError("partitions must be a non-empty list without repeats, or a number")
        return value

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = sorted(value.keys() - COLUMN_ROLES)
        if unknown:
            raise ValueError(
                f"{', '.join(unknown)}: not what a column can be; expected {', '.join(sorted(COLUMN_ROLES))}"
            )
        return value

    @field_validator("held_out")
    @classmethod
    def _share(cls, value: str | float | None) -> str | float | None:
        if isinstance(value, float) and not 0 < value <= 0.5:
            raise ValueError("a held-out share must be above 0 and at most 0.5")
        return value

    @property
    def iterations(self) -> int:
        """How many iterations of KTO the run has: one for each partition."""
        return self.partitions if isinstance(self.partitions, int) else len(self.partitions)

    @property
    def sources(self) -> list[str]:
        """The source as a list."""
        return [self.source] if isinstance(self.source, str) else list(self.source)


class LoraSection(Section):
    """Low-rank adapters on a frozen base (LoRA, arXiv:2106.09685), merged at every hand-over."""

    rank: int = Field(default=16, ge=1)
    """Rank of each adapter."""
    alpha: float = Field(default=32, gt=0)
    """Scale: the update is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input. Above 0, the loss depends on the packing, and resumed runs are not exact."""
    target_modules: str | list[str] = "all-linear"
    """Module names that get an adapter, or "all-linear"."""
    quantize: Literal["4bit"] | None = None
    """"4bit" keeps the initial model in NF4 for the whole run (QLoRA, arXiv:2305.14314); an iteration goes on with the
    last one's adapter. Handed over is what the 4 bits stand for, with the adapter merged. Needs bitsandbytes."""


class StopRule(Section):
    """A rule on the probe after an iteration that stops the run."""

    metric: Literal["preference_accuracy", "auc", "kl_initial", "kl_previous", "mean_length", "ended", "repetition"]
    """A value of the iteration's probe; all but preference_accuracy and auc need probe_prompts above 0."""
    above: float | None = None
    """Stop where the value is above this."""
    below: float | None = None
    """Stop where the value is below this."""

    @model_validator(mode="after")
    def _one_bound(self) -> "StopRule":
        if (self.above is None) == (self.below is None):
            raise ValueError("a stop rule needs exactly one of above and below")
        return self


class TrainSection(Section):
    """Iterative KTO (arXiv:2402.01306, Eq. 7 and 8)."""

    reference: Literal["previous", "initial"] = "previous"
    """Reference of each iteration: the model it starts from, or always the initial model."""
    beta: float = Field(default=0.1, gt=0)
    """How fast the value saturates: the risk aversion of the paper's value function."""
    desirable_weight: float | Literal["auto"] = "auto"
    """Lambda_D; "auto" chooses it by Eq. 8, so that desirable and undesirable feedback weigh the same."""
    undesirable_weight: float = Field(default=1.0, gt=0)
    """Lambda_U."""
    batch_size: int = Field(default=32, ge=2)
    """Feedback per optimizer step, over all machines, devices and micro-batches: the only batch size."""
    epochs: int = Field(default=1, ge=1)
    """Passes over each partition; every pass has a new order and new KL partners."""
    learning_rate: float = Field(default=5e-7, gt=0)
    """Peak learning rate of AdamW."""
    lr_scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "linear"
    """Learning rate over one iteration."""
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Share of an iteration's steps over which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)
    """AdamW's second-moment decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm over all parameters."""
    max_length: int = Field(default=2048, ge=8)
    """Most tokens of a prompt and one completion."""
    truncate: Literal["drop", "cut", "error"] = "drop"
    """What happens to feedback longer than max_length: left out, its completion cut at the end, or an error."""
    tokens_per_pack: Annotated[int, Field(ge=8, json_schema_extra=NOT_IDENTITY)] = 4096
    """Most tokens of one forward pass on one device. Changes memory and speed, never the result."""
    lora: LoraSection | None = None
    """Train adapters instead of all weights; null trains all weights, kept in fp32."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward and backward pass; weights are fp32 either way. "auto" is bf16 where the hardware
    has it."""
    gradient_checkpointing: Annotated[bool | None, Field(json_schema_extra=NOT_IDENTITY)] = None
    """Recompute activations in the backward pass: less memory, about a third more time; null: on a GPU only."""
    checkpoint_minutes: Annotated[float | None, Field(gt=0, json_schema_extra=NOT_IDENTITY)] = 20
    """Minutes between checkpoints (12 bytes a trained parameter each); null: by steps only."""
    checkpoint_every: Annotated[int | None, Field(ge=1, json_schema_extra=NOT_IDENTITY)] = None
    """Optimizer steps between checkpoints, besides; null: by time only."""
    report_to: Annotated[list[str], Field(json_schema_extra=NOT_IDENTITY)] = []
    """Trackers to log to besides metrics.jsonl: trackio, wandb, tensorboard, through transformers."""
    stop_if: Annotated[list[StopRule], Field(json_schema_extra=NOT_IDENTITY)] = []
    """Rules on the probe after each iteration that stop the run before the next."""
    probe_prompts: int = Field(default=8, ge=0)
    """Held-out prompts that are answered after each iteration to measure KL, length, endings and repetition."""
    probe_tokens: int = Field(default=128, ge=1)
    """Most new tokens of such an answer."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the order, the KL partners and the adapters' initial weights."""

    @field_validator("desirable_weight")
    @classmethod
    def _positive(cls, value: float | Literal["auto"]) -> float | Literal["auto"]:
        if value != "auto" and value <= 0:
            raise ValueError("desirable_weight must be above 0, or auto")
        return value


TOLD_BY_US = frozenset(["messages", "conversation", "tools", "chat_template", "tokenize", "add_generation_prompt"])
"""Variables of a chat template that are not for the recipe to set."""


def _template_variables(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    refused = sorted(name for name in value if name in TOLD_BY_US or not name.isidentifier())
    if refused:
        raise ValueError(f"{', '.join(refused)}: not for the recipe to set; expected for example enable_thinking")
    return value


TemplateVariables = Annotated[dict[str, JsonValue], AfterValidator(_template_variables)]


class GenerationSection(Section):
    """How answers are sampled."""

    temperature: float = Field(default=0.7, ge=0)
    """0 is greedy."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus sampling."""
    top_k: int | None = Field(default=None, ge=1)
    """Sample among the k likeliest tokens; null: all."""
    max_tokens: int = Field(default=2048, ge=1)
    """Most new tokens of an answer."""
    seed: int = 0
    """Each answer's own seed is derived from this, its instruction and its sample number."""
    samples: int = Field(default=1, ge=1)
    """Answers per instruction; above 1 measures the variance of generation."""
    chat_template_kwargs: TemplateVariables = {}
    """Variables for the chat template, for example {enable_thinking: false}. What a model thinks is left out before
    anything is judged or measured, and kept in answers.jsonl."""


class EngineSection(Section):
    """What generates."""

    kind: Literal["auto", "vllm", "transformers"] = "auto"
    """"auto" is vLLM where it is installed."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """vLLM: GPUs that share each layer."""
    pipeline_parallel_size: int = Field(default=1, ge=1)
    """vLLM: GPUs that share the stack of layers."""
    data_parallel_size: int = Field(default=1, ge=1)
    """vLLM: replicas of the model."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """vLLM: share of a GPU's memory to use."""
    max_model_len: int | None = Field(default=None, ge=16)
    """vLLM: longest prompt and answer; null: what the prompts and max_tokens need."""
    options: dict[str, str | int | float | bool] = {}
    """Further keyword arguments of vllm.LLM, passed on as they are."""


def _letters(value: list[str] | None) -> list[str] | None:
    if value is not None and (
        len(value) not in (2, 3)
        or len(set(value)) < len(value)
        or any(not text or text != text.strip() for text in value)
    ):
        raise ValueError(f"{value!r}; expected two or three different words: first, second, and maybe a draw")
    return value


Letters = Annotated[list[str] | None, AfterValidator(_letters)]
Verdict = Literal["auto", "logprobs", "text"]


def _check_words(judge: "OpenAIJudge | LocalJudge") -> None:
    if judge.letters is not None and judge.prompt == "alpaca_eval":
        raise ValueError("letters are set, and AlpacaEval's prompt asks for m and M; expected a prompt of your own")
    if getattr(judge, "structured", False) and judge.verdict == "logprobs":
        raise ValueError("structured is set, and with logprobs there are no words; expected verdict: text")
    if getattr(judge, "batch", None) == "anthropic" and (judge.verdict == "logprobs" or judge.structured):  # type: ignore[union-attr]
        raise ValueError("batch is 'anthropic', which gives words only; expected verdict: text, without structured")
    if judge.votes > 1 and judge.verdict == "logprobs":
        raise ValueError(
            f"votes is {judge.votes}, and log-probabilities are the same each time; expected verdict: text"
        )


class OpenAIJudge(Section):
    """A judge behind any OpenAI-compatible API. The key comes from the environment only."""

    kind: Literal["openai"]
    """An endpoint."""
    model: str
    """Model name, as the endpoint knows it."""
    base_url: str | None = None
    """Endpoint, for example http://127.0.0.1:8000/v1; null: OPENAI_BASE_URL, else OpenAI's own."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key."""
    azure_api_version: str | None = None
    """Set for Azure OpenAI: its API version; base_url is then the Azure endpoint."""
    prompt: Readable = "alpaca_eval"
    """"alpaca_eval" (the official prompt of AlpacaEval 2.0) or a file in the same form, which asks for m (the first
    output is better) or M, or for the letters below."""
    letters: Letters = None
    """What a prompt of one's own asks for, for example [A, B]: the first output, the second, and, if there is a third,
    a draw. Null: m and M."""
    verdict: Verdict = "auto"
    """How the verdict is read: "logprobs" from the probabilities of the letters, as AlpacaEval 2.0 does; "text" from
    the judge's words, thoughts left out, as one answer, the other or a draw; "auto" asks five small pairs first, and
    takes logprobs where they tell anything."""
    votes: int = Field(default=1, ge=1)
    """With text: how often each question is asked. The preference is the share of the votes."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of a judge's answer, thoughts included; null: 1 with logprobs, 2048 with text."""
    reasoning_effort: str | None = None
    """How long a judge thinks, in the endpoint's words (none, low, medium, high); null: not said."""
    chat_template_kwargs: TemplateVariables = {}
    """Variables for the chat template of a served model, for example {enable_thinking: false}."""
    batch: Literal["openai", "anthropic"] | None = None
    """Ask in batches, at half the price: `kto-release eval` writes the questions to files in this form, and once the
    results lie beside them, the same command collects them. Prices are those of single requests. Anthropic's form
    gives words, and has no trial."""
    structured: bool = False
    """With text: hold the API to JSON of the form {"better": "m"}, by response_format."""
    swap: bool = False
    """Ask in both orders and average: twice the price, no position bias."""
    concurrency: int = Field(default=32, ge=1)
    """Requests in flight."""
    timeout: float = Field(default=60, gt=0)
    """Seconds until a request counts as failed."""
    max_retries: int = Field(default=8, ge=0)
    """Tries after the first one for a failure that may pass (429, 5xx, timeout, reset)."""
    price_per_million_input: float | None = Field(default=None, ge=0)
    """USD per million input tokens, for the estimate and max_cost; null: unknown."""
    price_per_million_output: float | None = Field(default=None, ge=0)
    """USD per million output tokens."""
    max_cost: float | None = Field(default=None, ge=0)
    """USD; where the estimate is above it, nothing is asked."""
    parameters: dict[str, JsonValue] = {}
    """Further parts of the request, sent as they are: reasoning_effort, top_k, or mappings such as
    chat_template_kwargs; null takes out one of the request's own (max_tokens, logprobs, top_logprobs)."""
    headers: dict[str, str] = {}
    """Further headers of each request, for gateways. They are saved with the run, so a key does not belong here."""
    endpoint: str | None = None
    """A name for what serves the judge: with it, judgements outlive a move to another address or port; null: the
    address itself."""

    @field_validator("azure_api_version", mode="before")
    @classmethod
    def _version_as_text(cls, value: object) -> object:
        return _date_as_text(value)

    @model_validator(mode="after")
    def _request_is_one(self) -> "OpenAIJudge":
        _check_words(self)
        extra = self.parameters.get("extra_body")
        if extra is not None and not isinstance(extra, dict):
            raise ValueError(f"parameters: extra_body is {extra!r}; expected a mapping")
        given = {**self.parameters, **(extra or {})}
        own = {name for name in ("max_tokens", "reasoning_effort", "chat_template_kwargs") if getattr(self, name)}
        for name in sorted(own | ({"response_format"} if self.structured else set())):
            if name in given:
                raise ValueError(f"parameters: {name} is sent by the judge's own key already; keep one of them")
        for name in ("model", "messages", "stream"):
            if name in given:
                raise ValueError(f"parameters: {name} is not for the recipe to send: the request's own is needed")
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "n"):
            value = given.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"parameters: {name} is {value!r}; expected a number from 1")
        try:
            json.dumps(given, allow_nan=False)
        except ValueError:
            raise ValueError("parameters: JSON has no NaN and no infinity; expected a number") from None
        return self


class LocalJudge(Section):
    """A judge that runs here."""

    kind: Literal["local"]
    """A model on this machine."""
    model: FileName
    """Hub id or local folder; "initial" is the run's own initial model."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    prompt: Readable = "alpaca_eval"
    """"alpaca_eval" (the official prompt of AlpacaEval 2.0) or a file in the same form, which asks for m (the first
    output is better) or M, or for the letters below."""
    letters: Letters = None
    """What a prompt of one's own asks for, for example [A, B]: the first output, the second, and, if there is a third,
    a draw. Null: m and M."""
    verdict: Verdict = "auto"
    """How the verdict is read: "logprobs" from the probabilities of the letters, as AlpacaEval 2.0 does; "text" from
    the judge's words, thoughts left out, as one answer, the other or a draw; "auto" asks five small pairs first, and
    takes logprobs where they tell anything."""
    votes: int = Field(default=1, ge=1)
    """With text: how often each question is asked. The preference is the share of the votes."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of a judge's answer, thoughts included; null: 1 with logprobs, 2048 with text."""
    chat_template_kwargs: TemplateVariables = {}
    """Variables for the model's chat template, for example {enable_thinking: false}."""
    swap: bool = True
    """Ask in both orders and average."""
    max_length: int = Field(default=8192, ge=64)
    """Most tokens of a judge prompt; a longer one is a failed judgement."""

    @model_validator(mode="after")
    def _words_are_one(self) -> "LocalJudge":
        _check_words(self)
        return self


class RecordedJudge(Section):
    """Judgements that exist already, in alpaca_eval's annotations.json format."""

    kind: Literal["recorded"]
    """A file."""
    model: str
    """The judge that made them: it names the score."""
    path: FileName
    """The file: .json, .json.xz or .json.gz."""


Judge = Annotated[OpenAIJudge | LocalJudge | RecordedJudge, Field(discriminator="kind")]


class EvalSection(Section):
    """AlpacaEval 2.0, under a judge that is part of the score's name."""

    prompts: Readable = "alpaca_eval"
    """"alpaca_eval" (the 805 instructions, from the Hub at the pinned revision), "held_out" (the prompts of
    data.held_out), or a file: JSON, JSON lines, CSV, or a question in each line (.txt). A row holds `instruction`,
    `prompt` or `messages` (with a system prompt and earlier turns), and maybe `system` and `dataset`."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)
    """What your own set of questions is called, in the score's name too; null: instructions- and a digest."""
    reference: Readable = "auto"
    """What answers are compared with: "alpaca_eval" (its stored outputs), "initial" (the initial model's answers), a
    file in alpaca_eval's model_outputs.json format, or the folder of another run: the answers that it was compared
    with; "auto" is alpaca_eval for its instructions, else initial."""
    generation: GenerationSection = GenerationSection()
    """How answers are sampled."""
    engine: EngineSection = EngineSection()
    """What generates."""
    judge: Judge | None = None
    """What compares two answers; null: answers are generated and not judged."""
    max_instructions: int | None = Field(default=None, ge=1)
    """Take only the first so many instructions, for a trial: the result is marked as partial."""
    bootstrap: int = Field(default=1000, ge=100)
    """Resamples of the instructions behind each interval."""
    max_failed: float = Field(default=0.0, ge=0, le=1)
    """Share of judgements that may fail for good before the evaluation stops without a score."""
    min_answer_mass: float = Field(default=0.5, ge=0, le=1)
    """Mean probability of the answer letters below which a result is marked unreliable."""


class StatedResult(Section):
    """A result that no record of the run holds; it stands on the card as stated, apart from what was measured."""

    benchmark: str
    """For example AlpacaEval 2.0."""
    metric: str
    """For example win rate (not length-controlled)."""
    value: float
    """The number as stated."""
    judge: str
    """The judge that it was won under."""
    date: str
    """When it was stated."""
    source: str
    """Where: a URL."""
    note: str | None = None
    """For example the rank at that time."""

    @field_validator("date", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return _date_as_text(value)


class Emissions(Section):
    """Carbon emissions that somebody measured."""

    grams: float = Field(gt=0, allow_inf_nan=False)
    """Grams of CO2 equivalents, of all iterations together."""
    source: str
    """How they were measured, for example codecarbon 3.0."""


class ReleaseSection(Section):
    """What is published."""

    repo_id: str | None = None
    """Repository on the Hub: namespace/name. Needed to publish."""
    license: str = "auto"
    """Licence id; "auto" is resolved from the base model and the data, and a conflict is an error."""
    license_override: str | None = None
    """Why the licence above holds although base model and data conflict with it; recorded and shown on the card."""
    endpoint: str | None = Field(default=None, pattern=r"^https?://[^\s/]+/?$")
    """The Hub to publish to, for example https://hub.example.org; publishing is refused where HF_ENDPOINT names another
    one. Null: whichever HF_ENDPOINT names, else huggingface.co."""
    private: bool = True
    """Whether the repository is created private."""
    gated: Literal["auto", "manual"] | None = None
    """Access requests on the Hub; null: none."""
    dtype: Literal["base", "bfloat16", "float16", "float32"] = "base"
    """Precision of the published (and evaluated) weights; "base" is the base model's."""
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    """How fp32 becomes a narrower `dtype`: "stochastic" keeps in expectation what is smaller than its steps, as most
    of a short training is; "nearest" adds no noise, and loses it."""
    min_kept: float = Field(default=0.9, ge=0, le=1)
    """Least share of the training that the published weights must keep: of what log-probabilities of answers moved by,
    over the rows that training recorded."""
    gguf: list[Literal["f32", "f16", "bf16", "q8_0", "q4_k_m"]] = []
    """Also make GGUF files of these kinds for llama.cpp and Ollama (Llama's, Mistral's and Qwen's families), measured,
    in a repository of their own, named as this one with -GGUF; q4_k_m needs kto-release[gguf]."""
    template: FileName | None = None
    """Publish with another chat template than the one trained with; needs --replace-template."""
    title: str | None = None
    """The card's heading; null: the recipe's name."""
    summary: str | None = None
    """One or two sentences about the model, in your words."""
    language: list[str] = ["en"]
    """ISO 639-1 codes."""
    tags: list[str] = []
    """The card's tags; none given: kto, human-feedback and alignment."""
    datasets: list[str] = []
    """Hub ids of further data sets; data.source is listed by itself where it is a Hub id."""
    data_license: str | None = None
    """Licence of feedback that comes from files; Hub data sets carry their own."""
    metrics: list[str] = []
    """Metric ids for the card's metadata beside those that were measured."""
    limits: str | None = None
    """Known limits, in your words."""
    stated_results: list[StatedResult] = []
    """Results that others state of this recipe's model."""
    eval_results: bool = False
    """Also write .eval_results/alpaca_eval.yaml, the Hub's newer form of results, which it shows for benchmarks that
    are registered there; the card has them in any case."""
    emissions: Emissions | None = None
    """Carbon emissions of the training, where somebody measured them; kto-release does not."""
    citations: list[FileName] = []
    """Names in model_cards/citations/, or .bib files, beside KTO, HALOs, the base model's, the data's and
    AlpacaEval's."""
    tag: str | None = None
    """Git tag of the release on the Hub, for example v1.0."""
    predecessor: str | None = None
    """Hub id of the model that this one replaces; its card gets new_version."""


class Recipe(Section):
    """A whole run: model, data, train, eval, release."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)
    """Name of the run, and of its directory under runs/."""
    model: ModelSection
    data: DataSection
    train: TrainSection = TrainSection()
    eval: EvalSection = EvalSection()
    release: ReleaseSection = ReleaseSection()

    def dump(self) -> dict[str, Any]:
        """The resolved recipe as plain data."""
        return self.model_dump(mode="json")

    def identity(self) -> dict[str, Any]:
        """What determines the weights: model, data and train, without what only changes speed or display."""
        plain = {part: self.dump()[part] for part in ("model", "data", "train")}
        for name, field in TrainSection.model_fields.items():
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("identity") is False:
                del plain["train"][name]
        return plain


def sections_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that an annotation holds, however deep: of a list, of a union, or itself."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from sections_of(part)
