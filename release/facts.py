"""Everything that a card says, collected from the run's records and the published files: nothing is typed here.

What no record holds is None, and the card then says that it was not measured.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from kto_release import __version__
from kto_release.errors import ModelError, ReleaseError
from kto_release.lineage import HUB_ID, Lineage, Round, inherited, this_round
from kto_release.model_cards import DATA_CITATIONS, MODEL_CITATIONS, TEMPLATE_CITATIONS, citation
from kto_release.models import LocalModel, load_tokenizer
from kto_release.recipe import Emissions, GenerationSection, Recipe, StatedResult
from kto_release.records import EvalRecord, Facts, IterationRecord, KeptFacts, ModelFacts, WeightFacts
from kto_release.release.licenses import (
    CardLicense,
    LicenseFacts,
    LicenseSource,
    card_license,
    data_source,
    license_in,
    resolve,
)
from kto_release.release.replay import PUBLISHED, TRAINING
from kto_release.templates import adds_bos, eos_ids, make_template, render, render_text
from kto_release.templates.contract import system_message
from kto_release.templates.moment import in_words, moment_of

SAMPLE = (
    ("user", "Hi! I'm looking for a cake recipe."),
    ("assistant", "What kind of cake?"),
    ("user", "Chocolate cake."),
)
"""The conversation that a card shows rendered."""

PUBLIC_HUB = "https://huggingface.co"

LicenseLookup = Callable[[str, str | None], CardLicense | None]
"""The licence of a model by Hub id and revision; None where it is not to be had."""


class BaseFacts(Facts):
    """What the release descends from."""

    name: str
    """As the first iteration recorded it: a Hub id, or the name of a local folder."""
    hub_id: str | None
    """The nearest ancestor on the Hub; null: none is known."""
    revision: str | None
    """Its commit, where the weights came from there directly."""
    traced: bool
    """Whether the ancestor was found through a local folder's own card or records: the weights may differ from its."""
    sha256: str
    parameters: int


class PromptFacts(Facts):
    """The published chat template at work."""

    template: str
    """Its name, or that of its file."""
    trained_with: str
    replaced: bool
    """Whether another template is published than the one trained with."""
    text: str
    """The sample conversation up to the answer that is asked for; without the leading BOS token where the tokenizer
    puts it before plain text by itself: then this is what a person writes."""
    bos: str | None
    """Token that the template puts first; null: none."""
    tokenizer_adds_bos: bool
    """Whether the tokenizer puts it first where plain text is tokenized."""
    exact: bool = True
    """Whether the text, tokenized as it stands (with the special tokens that the tokenizer adds by itself where it adds
    BOS, else without), gives exactly the ids of the template."""
    ends_with_eos: bool
    shows_eos: bool = False
    """Whether the template writes end-of-sequence tokens within the conversation."""
    system: Literal["supported", "refused", "ignored"]
    """What the template does with a system message."""
    stop: list[str]
    """Tokens that end an answer."""
    moment: str | None = None
    """As of when it was rendered for training, where it prints the date; null: it prints none."""

    @property
    def after_answer_mark(self) -> bool:
        """Whether the prompt ends with the mark of an answer, and a line break."""
        return self.text.endswith("<|assistant|>\n")


class Architecture(Facts):
    """Of the published config.json."""

    name: str | None
    context: int | None
    """Most tokens of a conversation."""


class CardFacts(Facts):
    """All that a card is made of."""

    run: str
    title: str
    repo_id: str | None
    revision: str = "main"
    """The branch that the card belongs to."""
    summary: str | None
    limits: str | None
    language: list[str]
    tags: list[str]
    metrics: list[str]
    datasets: list[str]
    """Hub ids: those trained on, then those that the recipe adds."""
    stated_results: list[StatedResult]
    emissions: Emissions | None
    reference: Literal["previous", "initial"]
    planned: int
    """Iterations of the recipe."""
    endpoint: str = PUBLIC_HUB
    """The Hub that names mean a place on."""
    base: BaseFacts
    rounds: list[Round] = Field(default=[])
    """Trainings from the root to this model, in order, without the questions; the last is this one's."""
    license: LicenseFacts
    architecture: Architecture
    prompt: PromptFacts | None
    planned_sampling: GenerationSection = GenerationSection()
    """How the recipe samples answers: what holds where no evaluation says more."""
    pictures: list[str]
    """Paths in the release."""
    gguf: str | None = None
    """Repository of the same weights as GGUF files; null: none are made."""
    citations: list[str]
    """BibTeX."""
    predecessor: str | None
    made_by: str
    weights: WeightFacts | None
    kept: KeptFacts | None
    """What they keep of the training; null where nothing was rounded, or nothing measured."""
    iterations: list[IterationRecord]
    evaluations: list[EvalRecord]

    @property
    def last(self) -> IterationRecord:
        """The iteration that is published."""
        return self.iterations[-1]

    @property
    def sources(self) -> list[str]:
        """Hub ids and file names of all feedback, in the order of the iterations."""
        return [*dict.fromkeys(name for record in self.iterations for name in record.partition.source)]

    @property
    def initial_names(self) -> set[str]:
        """What evaluations call the initial model."""
        first = self.iterations[0].parent
        return {"initial", first.name, *([first.hub_id] if first.hub_id else [])}

    @property
    def sampling(self) -> GenerationSection:
        """How the published model's evaluated answers were sampled."""
        return _sampling(self.planned_sampling, self.evaluation_of(self.last.model.name))

    def evaluation_of(self, model: str) -> list[EvalRecord]:
        """Evaluations of "initial" or "iteration-N"."""
        return [record for record in self.evaluations if record.model is not None and record.model.name == model]


def sampled_with(recipe: Recipe, last: IterationRecord, evaluations: Sequence[EvalRecord]) -> GenerationSection:
    """How the evaluated answers of the iteration were sampled; as the recipe has it where none were judged."""
    own = [record for record in evaluations if record.model is not None and record.model.name == last.model.name]
    return _sampling(recipe.eval.generation, own)


def _sampling(planned: GenerationSection, evaluations: Sequence[EvalRecord]) -> GenerationSection:
    made = [record.generation for record in evaluations if record.generation is not None]
    if not made:
        return planned
    return GenerationSection(
        temperature=made[-1].temperature,
        top_p=made[-1].top_p,
        top_k=made[-1].top_k,
        max_tokens=made[-1].max_tokens,
        seed=made[-1].seed,
        samples=made[-1].samples,
    )


def collect_facts(
    recipe: Recipe,
    iterations: Sequence[IterationRecord],
    evaluations: Sequence[EvalRecord],
    *,
    base: LocalModel | None = None,
    weights: WeightFacts | None = None,
    kept: KeptFacts | None = None,
    model: Path | None = None,
    revision: str = "main",
    pictures: Sequence[str] = (),
    lookup: LicenseLookup | None = None,
    endpoint: str = PUBLIC_HUB,
) -> CardFacts:
    """The facts of a release. At least one iteration must be finished.

    `base` is the initial model's folder, `model` the folder with the published configuration, tokenizer and template,
    `revision` the branch that the release goes to, `pictures` are paths in the release, `lookup` finds a licence on the
    Hub (the default: the cache, then the Hub), `endpoint` is the Hub where the recipe names none.
    Raises `ReleaseError` where a citation does not exist, `ModelError` where the tokenizer can't be loaded.
    """
    if not iterations:
        raise ReleaseError("no iteration is finished, so there is nothing to describe", todo="kto-release train")
    section, first = recipe.release, iterations[0]
    lineage = descent(recipe, iterations, base)
    ancestor = trace(first.parent, base)
    return CardFacts(
        run=recipe.name,
        title=section.title or recipe.name,
        repo_id=section.repo_id,
        revision=revision,
        summary=section.summary,
        limits=section.limits,
        language=section.language,
        tags=section.tags,
        metrics=section.metrics,
        datasets=[*dict.fromkeys([*_data_sets(lineage, iterations), *section.datasets])],
        stated_results=section.stated_results,
        emissions=section.emissions,
        reference=recipe.train.reference,
        planned=recipe.data.iterations,
        endpoint=(section.endpoint or endpoint).rstrip("/"),
        base=ancestor,
        rounds=[each.model_copy(update={"questions": []}) for each in lineage.rounds],
        license=resolve(
            section.license,
            section.license_override,
            _sources(lineage, base, lookup or hub_license),
        ),
        architecture=_architecture(model),
        prompt=prompt_facts(recipe, iterations[-1], model) if model is not None else None,
        planned_sampling=recipe.eval.generation,
        pictures=list(pictures),
        gguf=f"{section.repo_id}-GGUF" if section.gguf and section.repo_id else None,
        citations=[*_citations(recipe, iterations, evaluations, lineage)],
        predecessor=section.predecessor,
        made_by=f"kto-release {__version__}",
        weights=weights,
        kept=kept,
        iterations=list(iterations),
        evaluations=list(evaluations),
    )


def _data_sets(lineage: Lineage, iterations: Sequence[IterationRecord]) -> list[str]:
    """Hub ids among the sources, of earlier rounds too."""
    on_hub = {name for record in iterations for name in record.partition.licenses}
    names = [source.name for each in lineage.rounds for source in each.data]
    return [*dict.fromkeys(name for name in names if name in on_hub or HUB_ID.fullmatch(name))]


def trace(parent: ModelFacts, base: LocalModel | None) -> BaseFacts:
    """The first of all ancestors of the model that the first iteration started from."""
    root = _before(parent, base).root
    return BaseFacts(
        name=root.name,
        hub_id=root.hub_id,
        revision=root.revision,
        traced=root.traced,
        sha256=root.sha256,
        parameters=parent.parameters,
    )


def _before(parent: ModelFacts, base: LocalModel | None) -> Lineage:
    return inherited(base or _unseen(parent), parent)


def _unseen(parent: ModelFacts) -> LocalModel:
    """A base whose folder is not here: what the record says of it is all that is known."""
    return LocalModel(Path(parent.name), parent.hub_id or parent.name, parent.hub_id, parent.revision)


def descent(recipe: Recipe, iterations: Sequence[IterationRecord], base: LocalModel | None) -> Lineage:
    """What the published model descends from, its own round included, with the licences that the recipe gives to data.

    Its own questions are not in it: the trained model's folder holds them.
    """
    first = iterations[0].parent
    before = _before(first, base)
    this = this_round(recipe.name, base or _unseen(first), before, iterations, [None] * len(iterations))
    rounds = [*before.rounds, this.model_copy(update={"repo_id": recipe.release.repo_id})]
    stated = recipe.release.data_license
    return before.model_copy(update={"rounds": [_licensed(each, stated) for each in rounds]})


def _licensed(each: Round, stated: str | None) -> Round:
    """A round's data with the licence that the recipe states for feedback from files; the Hub's data have their own."""
    data = [
        source.model_copy(update={"license": source.license or (None if HUB_ID.fullmatch(source.name) else stated)})
        for source in each.data
    ]
    return each.model_copy(update={"data": data})


def _sources(lineage: Lineage, base: LocalModel | None, lookup: LicenseLookup) -> list[LicenseSource]:
    """The licences of the root, of whatever else the base is, and of the data of all rounds."""
    root = lineage.root
    stated = CardLicense(root.license, root.license_name, root.license_link) if root.license else None
    if stated is None and root.hub_id is not None:
        stated = lookup(root.hub_id, root.revision)
    stated = stated or CardLicense(None)
    sources = [
        LicenseSource(
            part="base model",
            name=root.hub_id or root.name,
            id=stated.id,
            license_name=stated.name,
            license_link=stated.link,
        )
    ]
    between = license_in(base.path / "README.md") if base and len(lineage.rounds) > 1 else None
    if between is not None:
        # A release may be under a stricter licence than all that it was made of.
        name = lineage.rounds[-1].parent
        sources.append(
            LicenseSource(
                part="base model",
                name=name,
                id=between.id,
                license_name=between.name,
                license_link=between.link,
            )
        )
    data = {source.name: source.license for each in lineage.rounds for source in each.data}
    return sources + [data_source(name, stated_for) for name, stated_for in data.items()]


def hub_license(hub_id: str, revision: str | None) -> CardLicense | None:
    """The licence on a model's card: from the cache, else from the Hub; None where neither has it."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    from kto_release.hub import READ_FAILURES  # brings huggingface_hub

    try:
        cached = try_to_load_from_cache(hub_id, "README.md", revision=revision)
        if isinstance(cached, str):
            return license_in(Path(cached))
        card: Any = HfApi().model_info(hub_id, revision=revision, timeout=10).card_data  # Any: it is not typed
    except READ_FAILURES:
        return None
    return card_license(card.to_dict()) if card is not None else None


def _architecture(model: Path | None) -> Architecture:
    try:
        config = json.loads((model / "config.json").read_bytes()) if model else {}
    except (OSError, ValueError):
        config = {}
    names, context = config.get("architectures"), config.get("max_position_embeddings")
    return Architecture(
        name=names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None,
        context=context if isinstance(context, int) else None,
    )


def prompt_facts(recipe: Recipe, record: IterationRecord, model: Path) -> PromptFacts | None:
    """How the tokenizer in `model` renders the sample conversation; None where it has no chat template.

    `record` names the template that the model was trained with.
    """
    tokenizer = load_tokenizer(
        LocalModel(model, recipe.name, None, None), trust_remote_code=recipe.model.trust_remote_code
    )
    if not tokenizer.chat_template:
        return None
    replaced = _is_replaced(model, record.template_sha256)
    messages = [{"role": role, "content": content} for role, content in SAMPLE]
    text = render_text(tokenizer, messages, prompt=True)
    bos = tokenizer.bos_token
    printed = bool(bos) and text.startswith(bos)
    by_itself = adds_bos(tokenizer)
    shown = text.removeprefix(bos).lstrip(" ") if printed and by_itself else text
    return PromptFacts(
        template=Path(recipe.release.template or record.template).stem if replaced else record.template,
        trained_with=record.template,
        replaced=replaced,
        text=shown,
        bos=bos if printed else None,
        tokenizer_adds_bos=by_itself,
        exact=tokenizer(shown, add_special_tokens=printed and by_itself)["input_ids"]
        == render(tokenizer, messages, prompt=True),
        ends_with_eos=bool(tokenizer.eos_token) and text.rstrip("\n").endswith(tokenizer.eos_token),
        shows_eos=bool(tokenizer.eos_token) and tokenizer.eos_token in shown,
        system=system_message(tokenizer),
        stop=_stop_tokens(tokenizer, model),
        moment=in_words(moment) if (moment := moment_of(tokenizer)) else None,
    )


def _is_replaced(model: Path, trained: str) -> bool:
    """Whether the template in `model` is another one than that with the digest `trained`.

    With {% generation %} marks it is published beside; without, it is published but for its last line end.
    """
    for name in (TRAINING, PUBLISHED):
        if (model / name).is_file():
            source = (model / name).read_text(encoding="utf-8")
            return trained not in {make_template(name, text).sha256 for text in (source, source + "\n")}
    return False


def _stop_tokens(tokenizer: Any, model: Path) -> list[str]:
    try:
        return [str(tokenizer.convert_ids_to_tokens(number)) for number in eos_ids(model)]
    except (ModelError, OSError, ValueError):
        return []


def _citations(
    recipe: Recipe, iterations: Sequence[IterationRecord], evaluations: Sequence[EvalRecord], lineage: Lineage
) -> Iterator[str]:
    names = ["kto", "halos"]
    names += [name for begin, name in MODEL_CITATIONS.items() if (lineage.root.hub_id or "").startswith(begin)]
    for data in _data_sets(lineage, iterations):
        names += DATA_CITATIONS.get(data, [])
    names += [TEMPLATE_CITATIONS[name] for name in (recipe.model.template,) if name in TEMPLATE_CITATIONS]
    adapters = [record.training.lora for record in iterations if record.training.lora]
    names += ["lora"] * bool(adapters) + ["qlora"] * any(adapter.get("quantize") for adapter in adapters)
    if evaluations or recipe.release.stated_results:
        names.append("alpaca_eval")
    if any(record.length_controlled_winrate is not None for record in evaluations):
        names.append("length_controlled_alpaca_eval")
    for name in dict.fromkeys([*names, *recipe.release.citations]):
        yield citation(name)
