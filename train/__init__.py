"""Training: iterative KTO, each iteration over its own partition, each one's model the reference of the next."""

from collections.abc import Sequence
from pathlib import Path

from kto_release import console
from kto_release.records import IterationRecord, Probe
from kto_release.run import Run


def train(run: Run) -> list[IterationRecord]:
    """Train all iterations of a run that are not finished, and return the records of all.

    Whatever interrupts it, the same call goes on from where it was. Raises `KtoReleaseError` subclasses.
    """
    # In here, so that reading records and plans, as the release does, needs no torch.
    from kto_release.published import published, show_kept, wanted_dtype
    from kto_release.train import curves
    from kto_release.train.chain import run_iteration, stopped_by
    from kto_release.train.device import process_state
    from kto_release.train.distributed import check_shared
    from kto_release.train.inputs import check_recipe, prepare
    from kto_release.train.tokenizing import clear_unfinished
    from kto_release.train.waiting import in_turn, together

    console.quiet_libraries()
    check_recipe(run.recipe)
    state = process_state()
    with run.lock(hold=state.is_main_process):
        with together(state):
            if state.is_main_process:
                run.create()
                clear_unfinished(run.path)
        check_shared(state, run.path)
        with in_turn(state):
            inputs = prepare(run)
        records: list[IterationRecord] = []
        for number in range(1, run.recipe.data.iterations + 1):
            records.append(run_iteration(inputs, number))
            reason = stopped_by(run.recipe.train.stop_if, records[-1].probe)
            if reason is not None:
                console.warn(f"stopped after iteration {number}: {reason}")
                break
        if state.is_main_process:
            picture = curves.draw(run, records)
            _show(records)
            if wanted_dtype(run, records[0].parent.dtype) != records[-1].model.dtype:  # else nothing is rounded
                show_kept(published(run, records[-1]), run.recipe.release.min_kept)
            console.say(f"Curves: {picture}")
            console.say(f"Model:  {run.iteration(len(records)) / 'model'}")
    return records


def preview(run: Run, launch: Path | None = None) -> None:
    """Show what `train` would do, without writing or training anything.

    Args:
        run: the run.
        launch: an accelerate configuration, for the memory estimate.
    """
    # In here for the same reason.
    from kto_release.train.dry_run import show_plan

    console.quiet_libraries()
    show_plan(run, launch)


def _show(records: Sequence[IterationRecord]) -> None:
    rows = [
        [
            record.iteration,
            record.training.steps,
            record.partition.kept.desirable + record.partition.kept.undesirable,
            f"{record.training.last['loss']:.4f}",
            f"{record.training.last['kl']:.3f}",
            _held_out(record.probe),
            _number(record.probe.kl_initial, ".2f"),
            _number(record.probe.mean_length, ".0f"),
            _number(record.probe.ended, ".0%"),
            f"{record.training.seconds:.0f} s",
        ]
        for record in records
    ]
    measures = [record.probe.held_out.name.split()[-1] for record in records if record.probe.held_out]
    measure = measures[-1] if measures else "accuracy"
    console.table(
        f"Iterations (the probe is on held-out feedback; {measure} with its 95% interval)",
        ["", "steps", "feedback", "loss", "z", measure, "KL to initial", "tokens", "ended", "time"],
        rows,
    )
    last = records[-1].probe.separation if records else None
    if last and last.auc and last.length_auc is not None and last.within_lengths is not None:
        console.say(
            f"  AUC of the last one: {last.auc.value:.3f} ({last.auc.shown(digits=3)}; {last.desirable} desirable and "
            f"{last.undesirable} undesirable answers); {last.within_lengths:.3f} among answers of like length; "
            f"the length alone gives {last.length_auc:.3f}"
        )


def _held_out(probe: Probe) -> str:
    found = probe.held_out
    if found is None:
        return "not measured"
    return f"{found.interval.value:.3f} ({found.interval.shown(digits=3)})"


def _number(value: float | None, form: str) -> str:
    return "not measured" if value is None else format(value, form)
