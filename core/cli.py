"""The `fw` command. Heavy imports happen inside the commands, so that `fw --help` answers at
once."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from fw.core import templates
from fw.core.errors import FwError, Interrupted, OutOfOrder, RecipeError, StageFailed
from fw.core.machine.streams import sturdy
from fw.core.messages.escaping import visible, visible_lines
from fw.registry.once import one_look

TRACEBACK = "FW_TRACEBACK"
"""If this variable is 1, the traceback of an unexpected exception is printed, not written to a
file."""

CONTINUING = {"run", "work", "clusters"}
"""Commands whose work is kept stage by stage."""

CONTINUES = "nothing that was finished is lost; the same command continues from there"


class Commands(typer.core.TyperGroup):
    """The commands, with a message when one is interrupted or fails; typer would say less."""

    def invoke(self, ctx: Any) -> Any:
        failure: Exception
        try:
            with one_look():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            failure = Interrupted("interrupted")
        except (StageFailed, OutOfOrder) as error:
            failure = error
        except FwError:
            raise
        except Exception as error:
            broken_pipe = isinstance(error, OSError) and error.errno == errno.EPIPE
            failure = OutOfOrder(f"a connection broke: {error}") if broken_pipe else error
        if ctx.invoked_subcommand in CONTINUING:
            failure.add_note(CONTINUES)
        raise failure


app = typer.Typer(
    name="fw",
    cls=Commands,
    help="Composable experiments that join self-supervised learning and diffusion.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def checked_device(device: str) -> str:
    """Refuse a --device that fw does not run on, in every command and before any work."""
    if device not in ("auto", "cpu"):
        from fw.core.execution.devices import known_device

        known_device(device)
    return device


RecipePath = Annotated[
    Path, typer.Argument(help="a recipe, such as recipes/self_guidance.yaml", metavar="RECIPE")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="override a key: --set train.steps=2000", metavar="KEY=VALUE"),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="a plugin in one .py file, not installed; may be repeated"),
]
Out = Annotated[
    Path, typer.Option("--out", help="folder of the store, the runs and MLflow's database")
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or cuda:N", callback=checked_device)
]
Batch = Annotated[
    int | None,
    typer.Option(
        min=1, max=1000, help="images sampled at once [default: as many as suit the device]"
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="CPU threads of each job [default: 1 on CPU]")
]
CheckpointSeconds = Annotated[float, typer.Option(min=0, help="time between checkpoints")]
Ranks = Annotated[
    str,
    typer.Option(
        "--ranks",
        help="processes, or GPUs, that do a stage together; auto divides the GPUs among the jobs",
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        help="stop a stage whose process takes more memory than this, such as 8G; mapped files do "
        "not count",
        metavar="SIZE",
    ),
]
Training = Annotated[
    int | None,
    typer.Option(
        "--training",
        help="the seed of the training, where the run has several (repeats) [default: the first]",
        metavar="SEED",
    ),
]
DEFAULT_OUT = Path("runs")


@app.command()
def run(
    recipe: RecipePath,
    set_: Sets = None,
    arm: Annotated[
        list[str] | None, typer.Option("--arm", help="only this arm; may be repeated")
    ] = None,
    plugin: Plugins = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan and stop")] = False,
    out: Out = DEFAULT_OUT,
    device: Device = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="stages side by side [default: a CPU core or a GPU each]"),
    ] = None,
    ranks: Ranks = "1",
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            help="do the stages on a Ray cluster: auto, local (start one here) or host:port",
            metavar="ADDRESS",
        ),
    ] = None,
    workers: Workers = None,
    checkpoint_seconds: CheckpointSeconds = 20.0,
    batch: Batch = None,
    max_memory: MaxMemory = None,
    keep_dependents: Annotated[
        bool,
        typer.Option(
            "--keep-dependents", help="keep what was made of products that were made again since"
        ),
    ] = False,
) -> None:
    """Run a recipe; run it again to resume. Ends with a table of the arms."""
    from rich.console import Console

    from fw.core.execution.devices import known_ranks
    from fw.core.execution.options import Options
    from fw.core.machine.memory import size_of
    from fw.core.machine.stopping import shelter_resource_tracker
    from fw.core.messages.console import say
    from fw.core.plan.assembly import plan
    from fw.core.recipe import checks
    from fw.core.recipe.loading import load
    from fw.core.report import provenance
    from fw.core.report.page.write import PAGE
    from fw.core.report.terminal import show
    from fw.core.run.run import run as run_plan
    from fw.core.store.store import Store

    shelter_resource_tracker()
    add_plugins(plugin)
    end_dead_runs(out)
    loaded = load(recipe, set_ or ())
    planned = plan(loaded, arm or ())
    console = Console(stderr=True)
    warnings = [*map(str, checks.warnings(loaded)), *provenance.notices(planned)]
    for warning in warnings:
        say(console, f"warning: {warning}", style="yellow")
    options = Options(
        out=out,
        device=device,
        jobs=jobs,
        threads=workers,
        checkpoint_seconds=checkpoint_seconds,
        batch=batch,
        max_memory=None if max_memory is None else size_of(max_memory),
        keep_dependents=keep_dependents,
        ranks=known_ranks(ranks),
        cluster=cluster,
    )
    if dry_run:
        show_plan(planned, Store(options.store))
        return
    result, failure = run_plan(loaded, planned, options, warnings, console)
    stdout = wide_console()
    show(result, stdout)
    say(stdout, f"report  {out / loaded.name / 'latest' / PAGE}")
    if result.get("look"):
        say(stdout, f"look    {result['look']}")
    if failure is not None:
        raise failure


@app.command()
def work(
    recipe: RecipePath,
    set_: Sets = None,
    plugin: Plugins = None,
    out: Out = DEFAULT_OUT,
    device: Device = "auto",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="stages side by side [default: as of fw run]")
    ] = None,
    workers: Workers = None,
    checkpoint_seconds: CheckpointSeconds = 20.0,
    batch: Batch = None,
    ranks: Ranks = "1",
    max_memory: MaxMemory = None,
) -> None:
    """Do a recipe's stages beside other runs on the same store; no tracker, no report.

    Ends when all stages are finished, here or there; `fw run` reports them."""
    from rich.console import Console

    from fw.core.execution.devices import known_ranks
    from fw.core.execution.options import Options
    from fw.core.machine.memory import size_of
    from fw.core.machine.stopping import shelter_resource_tracker
    from fw.core.plan.assembly import plan
    from fw.core.recipe.loading import load
    from fw.core.run.missing import finish

    shelter_resource_tracker()
    add_plugins(plugin)
    loaded = load(recipe, set_ or ())
    planned = plan(loaded)
    options = Options(
        out=out,
        device=device,
        jobs=jobs,
        threads=workers,
        checkpoint_seconds=checkpoint_seconds,
        batch=batch,
        max_memory=None if max_memory is None else size_of(max_memory),
        ranks=known_ranks(ranks),
    )
    finish(loaded, planned, options, Console(stderr=True))
    answer(f"all {len(planned.stages)} stages are finished in {options.store}")


@app.command()
def validate(
    recipes: Annotated[list[Path], typer.Argument(help="recipes", metavar="RECIPE...")],
    set_: Sets = None,
    plugin: Plugins = None,
) -> None:
    """Check recipes without running them: every fault, its line, and what would be right."""
    from fw.core.plan.assembly import plan
    from fw.core.recipe import checks
    from fw.core.recipe.class_names import numbered_names
    from fw.core.recipe.loading import load
    from fw.core.report import provenance

    add_plugins(plugin)
    problems: list[str] = []
    for path in recipes:
        try:
            loaded = load(path, set_ or ())
        except RecipeError as error:
            problems += error.problems
            continue
        planned = plan(loaded)
        answer(f"{path}: fine ({len(loaded.arms)} arms, {len(planned.stages)} stages)")
        if names := loaded.dataset.class_names:
            answer(f"{path}: classes: {numbered_names(names)}")
        for warning in (*checks.warnings(loaded), *provenance.notices(planned)):
            answer(f"{path}: warning: {warning}")
    if problems:
        raise RecipeError(problems)


@app.command()
def plugins(
    name: Annotated[
        str | None, typer.Argument(help="a component, a kind or a plugin, to see all of it")
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="only components of this kind")] = None,
    plugin: Plugins = None,
    check: Annotated[
        bool, typer.Option("--check", help="run the contract kit on the components")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="answer with one JSON document")] = False,
) -> None:
    """List the components that recipes can name, their plugins, and which plugins are broken."""
    from contextlib import redirect_stdout

    from rich.console import Console

    from fw.core.catalogue.view import Request
    from fw.core.catalogue.view import answer as answer_request
    from fw.registry import installed

    stdout = Console(file=sys.stdout)
    with redirect_stdout(sys.stderr):  # what plugins print is not the answer
        add_plugins(plugin)
        request = Request(name, kind, plugin or (), check, as_json)
        passed = answer_request(request, installed(), stdout)
    if not passed:
        raise typer.Exit(1)


@app.command("new-plugin")
def new_plugin(
    name: Annotated[
        str, typer.Argument(help="the package's name, such as fw-sharpen", metavar="NAME")
    ],
    kind: Annotated[str, typer.Option("--kind", help=", ".join(templates.names()))],
    into: Annotated[
        Path, typer.Option("--into", help="the folder to make the package in")
    ] = Path(),
    component: Annotated[
        str | None,
        typer.Option("--component", help="what recipes call it [default: NAME without fw-]"),
    ] = None,
) -> None:
    """Write a complete plugin package to start from; its tests, lint and types are clean."""
    import shlex

    from fw.core.commands import new_plugin as scaffold

    for path in scaffold.new_plugin(name, kind, into, component):
        answer(f"wrote {path}")
    print("next:")
    for command in (
        f"cd {shlex.quote(str(into / name))}",
        'python -m pip install --editable ".[test]"',
        "pytest",
    ):
        answer(f"  {command}")


@app.command()
def schema(plugin: Plugins = None) -> None:
    """Print the JSON Schema of recipes, for editors."""
    import json

    from fw.core.recipe.model import Recipe

    add_plugins(plugin)
    print(json.dumps(Recipe.model_json_schema(), indent=1))


@app.command()
def recipes() -> None:
    """List the recipes that come with fw."""
    from importlib.resources import files

    for entry in sorted(files("fw.recipes").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            first = entry.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            answer(entry)
            answer(f"    {first}")


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="run folders, such as runs/self_guidance/latest, or MLflow's runs:/ID and the "
            "addresses of its pages"
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="answer with one JSON document")] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="answer with a line for each score and seed")
    ] = False,
    html: Annotated[Path | None, typer.Option("--html", help="write a page to this file")] = None,
    tracker: Annotated[
        str, typer.Option("--tracker", help="who knows runs that are in no folder")
    ] = "mlflow",
    out: Out = DEFAULT_OUT,
) -> None:
    """Compare finished runs; runs of one recipe from several seeds count as one."""
    from os.path import exists  # False of what can be no path, where Path.exists raises

    from fw.core.commands import compare
    from fw.core.run.finished import FinishedRun

    if as_json and as_csv:
        raise FwError("--json and --csv: name one")
    for name in filter(exists, runs):
        end_dead_runs(FinishedRun(Path(name)).root)
    results = [compare.read(name, lambda: tracker_of(tracker), out) for name in runs]
    if html is not None:
        compare.as_html(results, html)
    if as_json or as_csv:
        print(compare.as_json(results) if as_json else compare.as_csv(results).rstrip("\n"))
    elif html is None:
        compare.compare(results, wide_console())


@app.command()
def clusters(
    recipe: RecipePath,
    set_: Sets = None,
    arm: Annotated[
        str | None,
        typer.Option(
            "--arm", help="whose encoder and annotator [default: the first that clusters]"
        ),
    ] = None,
    counts: Annotated[
        str | None,
        typer.Option(
            "-k", help="numbers of clusters [default: 10,20,50,... up to half the images]"
        ),
    ] = None,
    plugin: Plugins = None,
    out: Out = DEFAULT_OUT,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="answer with one JSON document")] = False,
) -> None:
    """Show how an annotator divides an arm's features at several numbers of clusters K."""
    import json

    from rich.console import Console

    from fw.core.commands import clusters
    from fw.core.execution.options import Options
    from fw.core.machine.stopping import shelter_resource_tracker
    from fw.core.recipe.loading import load

    shelter_resource_tracker()
    add_plugins(plugin)
    end_dead_runs(out)
    numbers = clusters.numbers(counts) if counts is not None else []
    result = clusters.survey(
        load(recipe, set_ or ()), arm, numbers, Options(out, device), Console(stderr=True)
    )
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        clusters.show(result, wide_console())


@app.command()
def plot(
    run_: Annotated[
        Path, typer.Argument(help="a run folder, such as runs/clusters/latest", metavar="RUN")
    ],
    x: Annotated[
        str, typer.Option("--x", help="the recipe's key, such as annotator.clusters", metavar="KEY")
    ],
    y: Annotated[
        str | None,
        typer.Option("--y", help="scores, such as fd_classifier,recall [default: the first four]"),
    ] = None,
    output: Annotated[Path, typer.Option("-o", help="the PNG to write")] = Path("sweep.png"),
) -> None:
    """Draw scores of a finished run against a key in which its arms differ."""
    from fw.core.commands.plot import plot as plot_sweep
    from fw.core.run.finished import FinishedRun

    finished = FinishedRun(run_)
    end_dead_runs(finished.root)
    plot_sweep(finished, x, y.split(",") if y else [], output)
    answer(output)


@app.command()
def heatmap(
    run_: Annotated[
        Path,
        typer.Argument(help="a run folder, such as runs/diffusion_features/latest", metavar="RUN"),
    ],
    arm: Annotated[str, typer.Option("--arm", help="the arm whose trained model is read")],
    training: Training = None,
    sigmas: Annotated[
        str | None,
        typer.Option("--sigmas", help="noise levels, such as 0.05,0.5 [default: 0.02 to 2]"),
    ] = None,
    count: Annotated[
        int, typer.Option("-n", min=20, help="at most so many images of each split")
    ] = 5000,
    draws: Annotated[
        int, typer.Option("--draws", min=1, help="draws of noise that are averaged")
    ] = 4,
    output: Annotated[
        Path | None,
        typer.Option("-o", help="the PNG to write, with a JSON beside it [default: in RUN]"),
    ] = None,
    device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Probe what each block of a trained model knows of the labels at each noise level."""
    from rich.console import Console

    from fw.core.commands import heatmap
    from fw.core.run.finished import FinishedRun

    add_plugins(plugin)
    finished = FinishedRun(run_)
    end_dead_runs(finished.root)
    request = heatmap.Request(
        arm, heatmap.levels(sigmas) if sigmas is not None else (), count, draws, device, training
    )
    console = Console(stderr=True)
    output = heatmap.target(finished, request, output)
    result = heatmap.survey(finished, request, console)
    for path in heatmap.write(result, output):
        answer(path)
    answer(heatmap.verdict(result))
    heatmap.log(finished, result, output, console)


@app.command()
def sample(
    run_: Annotated[
        Path, typer.Argument(help="a run folder, such as runs/self_guidance/latest", metavar="RUN")
    ],
    arm: Annotated[str, typer.Option("--arm", help="the arm to sample from")],
    training: Training = None,
    count: Annotated[int, typer.Option("-n", min=1, help="how many images")] = 64,
    output: Annotated[Path, typer.Option("-o", help="the PNG to write")] = Path("grid.png"),
    seed: Annotated[
        int, typer.Option(min=0, help="sampling seed; the report's are 0, 1, 2, ...")
    ] = 0,
    device: Device = "auto",
    batch: Batch = None,
    plugin: Plugins = None,
) -> None:
    """Draw fresh samples from a trained arm."""
    from rich.console import Console

    from fw.core.commands.sample import draw
    from fw.core.run.finished import FinishedRun

    add_plugins(plugin)
    finished = FinishedRun(run_)
    end_dead_runs(finished.root)
    draw(finished, arm, training, count, output, seed, device, batch, Console(stderr=True))
    answer(output)


@app.command()
def reproduce(
    run_: Annotated[
        Path, typer.Argument(help="a run folder, such as runs/self_guidance/latest", metavar="RUN")
    ],
    from_samples: Annotated[
        bool,
        typer.Option("--from-samples", help="make the features of stored images again, too"),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="run the logged recipe anew, trainings included")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="where --again runs it [default: a folder that is deleted]"),
    ] = None,
    device: Device = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="stages of --again side by side [default: as of fw run]"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="CPU threads, as the run had [default: 1 on CPU]")
    ] = None,
) -> None:
    """Compute a run's scores once more and compare them with its table, bit for bit.

    Local plugins are executed as the run kept them."""
    from rich.console import Console

    from fw.core.execution.options import Options
    from fw.core.machine.stopping import shelter_resource_tracker
    from fw.core.report import agreement
    from fw.core.run.finished import FinishedRun

    if again and from_samples:
        raise FwError("--from-samples and --again: name one; --again makes new samples")
    if not again and (out is not None or jobs is not None):
        raise FwError("--out and --jobs are about --again, which is not there")
    shelter_resource_tracker()
    finished, console = FinishedRun(run_), Console(stderr=True)
    end_dead_runs(finished.root)
    if again:
        from fw.core.commands.again import rerun

        lines = rerun(finished, out, Options(Path(), device, jobs, workers), console)
    else:
        from fw.core.commands.reproduce import Request, recompute

        lines = recompute(finished, Request(from_samples, device, workers), console)
    stdout = wide_console()
    agreement.show(lines, stdout)
    answer(agreement.conclusion(lines))
    if any(line.fault for line in lines):
        raise typer.Exit(1)


@app.command()
def verify(
    path: Annotated[
        Path,
        typer.Argument(help="a runs folder, its store, or one run's folder", metavar="STORE|RUN"),
    ] = DEFAULT_OUT,
    discard: Annotated[
        bool, typer.Option("--discard", help="discard damaged products, to be made again")
    ] = False,
) -> None:
    """Compare every byte of stored products with their checksums."""
    from fw.core.commands.verify import verify as verify_products

    damaged = 0
    for stage, reason in verify_products(path, discard):
        damaged += 1
        answer(f"{stage}: {reason}{'; discarded' if discard else ''}")
    if damaged:
        then = "the recipe run again makes them again"
        then = then if discard else f"discard them with --discard, and {then}"
        answer(f"{damaged} damaged products; {then}")
        raise typer.Exit(1)
    answer(f"{path}: every product is as it was stored")


@app.command()
def sync(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="run folders [default: all in --out]", metavar="[RUN]..."),
    ] = None,
    out: Out = DEFAULT_OUT,
    plugin: Plugins = None,
) -> None:
    """Log what a run's tracker missed while its server was away; it may be repeated."""
    from rich.console import Console

    from fw.core.run.finished import FinishedRun
    from fw.core.run.sync import journals
    from fw.core.run.sync import sync as sync_run

    add_plugins(plugin)
    named = [FinishedRun(run) for run in runs or ()]
    for each in named:
        each.check()
    folders = [each.folder for each in named] or list(journals(out.absolute()))
    failures = []
    for folder in folders:
        try:
            news = sync_run(folder, Console(stderr=True))
        except FwError as error:
            failures.append(f"{folder}: {error}")
        else:
            answer(f"{folder}: {'logged what was missing' if news else 'nothing was missing'}")
    if failures:
        raise StageFailed("\n".join(failures))
    if not folders:
        answer(f"{out}: no run in there is logged to a tracker")


@app.command()
def register(
    run_: Annotated[
        Path, typer.Argument(help="a run folder, such as runs/self_guidance/latest", metavar="RUN")
    ],
    arm: Annotated[str, typer.Option("--arm", help="the arm whose model it is")],
    name: Annotated[str, typer.Option("--name", help="the model's name in the registry")],
    training: Training = None,
    plugin: Plugins = None,
) -> None:
    """Register an arm's model with the recipe's tracker; prints the address to load it by."""
    from fw.core.run.finished import FinishedRun
    from fw.core.run.register import register as register_arm

    add_plugins(plugin)
    finished = FinishedRun(run_)
    end_dead_runs(finished.root)
    answer(register_arm(finished, arm, training, name))


@app.command()
def ui(
    out: Out = DEFAULT_OUT,
    port: Annotated[int, typer.Option(min=1, max=65535, help="port on this machine")] = 5000,
    tracker: Annotated[str, typer.Option("--tracker", help="whose page")] = "mlflow",
    browser: Annotated[
        bool,
        typer.Option(help="open the newest run's page in a browser, if there is a display"),
    ] = True,
) -> None:
    """Open the tracker's page, MLflow's by default, on the runs in a folder."""
    from inspect import signature

    end_dead_runs(out)
    serve = tracker_of(tracker).serve
    options = {"browse": browser} if "browse" in signature(serve).parameters else {}
    raise typer.Exit(serve(out.absolute(), port, **options))


def end_dead_runs(out: Path) -> None:
    """End at their trackers the runs of a runs folder whose process has died."""
    import contextlib

    from fw.core.run.aftermath import end_abandoned

    with contextlib.suppress(Exception):  # faults of those runs do not concern this command
        end_abandoned(out.absolute(), lambda text: print(visible(text), file=sys.stderr))


def add_plugins(files: list[Path] | None) -> None:
    """Add the plugins of --plugin to those that are installed."""
    if not files:
        return
    from fw.registry import LocalPlugin, UnfitPlugin, add_files, installed

    try:
        add_files(installed(), [LocalPlugin.read(file) for file in files])
    except UnfitPlugin as error:
        raise FwError(f"--plugin {error}") from error


def show_plan(planned: Any, store: Any) -> None:
    """The stages in running order, whether they are done, and each arm's network evaluations."""
    for stage in planned.stages.values():
        state = store.status(stage.id).state
        answer(f"{'done' if state == 'done' else 'to do':6} {stage.id:26} {stage.title}")
    for name, arm in planned.arms.items():
        answer(
            f"arm {name}: at most {arm.nfe} network evaluations per image, trained in {arm.train}"
        )


def tracker_of(name: str) -> Any:
    """An installed tracker, with its defaults; FwError if there is none of the name."""
    from fw.registry import UnknownComponent, installed

    try:
        return installed().get("tracker", name)()
    except UnknownComponent as error:
        raise FwError(f"--tracker {name}: {error}") from None


def answer(text: object) -> None:
    """Print one line of a command's answer."""
    print(visible(text))


def wide_console() -> Any:
    """Standard output; not folded to 80 columns when it is no terminal."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=200)


def quiet_threads() -> None:
    """Small networks on shared cores: one OpenMP thread that does not spin, unless the user says
    otherwise.

    Two spinning threads on two shared cores were measured 15 to 130 times slower than one. OpenMP
    reads this when torch is imported, and worker processes inherit it.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def guarded(command: Callable[[], None]) -> int:
    """Run the command. Whatever ends it becomes one message and an exit code, not a traceback; see
    fw.core.errors."""
    try:
        command()
    except FwError as error:
        return ended(error, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        return ended(error, "interrupted", Interrupted.exit_code)
    except Exception as error:
        from fw.core.messages.blame import blamed
        from fw.core.messages.plain import plain

        whose, why = blamed(error), plain(error)
        if whose is not None:
            return ended(error, f"{whose}; {why}" if why else whose, FwError.exit_code)
        return ended(error, why or unexpected(error), OutOfOrder.exit_code)
    return 0


def ended(error: BaseException, reason: str, code: int) -> int:
    """Print why a command ended, and whether the same command continues; returns the exit code."""
    from fw.core.messages.secrets import redact

    print(visible_lines(redact(reason)), file=sys.stderr)
    if CONTINUES in getattr(error, "__notes__", ()):
        print(CONTINUES, file=sys.stderr)
    return code


def unexpected(error: Exception) -> str:
    """The message for an exception that nobody foresaw: it is a fault of fw. The traceback goes to
    a file."""
    from fw.core.messages.secrets import redact
    from fw.registry.errors import in_one_line

    trace = redact("".join(traceback.format_exception(error)))
    message = f"this is a fault of fw, not of yours: {in_one_line(error)}"
    if os.environ.get(TRACEBACK, "0") not in ("", "0"):
        return f"{trace}{message}"
    try:
        with tempfile.NamedTemporaryFile(
            prefix="fw-traceback-", suffix=".txt", delete=False
        ) as file:
            file.write(trace.encode("utf-8", "backslashreplace"))
    except OSError:
        return f"{message} (set {TRACEBACK}=1 to see the traceback)"
    return f"{message} (please report it; the traceback is in {file.name})"


def main() -> None:
    """The console script."""
    sturdy()
    quiet_threads()
    sys.exit(guarded(start))


def start() -> None:
    """Run the command line. It needs a working directory that is there: libraries crash without
    one."""
    Path.cwd()
    app()


if __name__ == "__main__":
    main()
