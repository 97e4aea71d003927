"""lookbook every night with Airflow 3: one task a stage, shards mapped, retries where a retry can mend.

The program is the one that LOOKBOOK_PROGRAM names, else `lookbook` of the PATH. The pool `gpu` must be there:

    airflow pools set gpu 1 "stages of lookbook that run the network"

Source and output may hold {date}: it becomes the date of the run, so that a back-fill reads and writes what belongs to
each night. docs/operations.md has the rest.
"""

import os
from datetime import datetime, timedelta

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import DAG, BaseOperator, Param, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

PROGRAM = os.environ.get("LOOKBOOK_PROGRAM", "lookbook")
RETRY_DELAY = timedelta(seconds=int(os.environ.get("LOOKBOOK_RETRY_SECS", "300")))
MOST_SHARDS = 500

NOTHING_TO_DO = 99
# Held by another run, told to stop: another time it works. What a bad input, setting, gate or disk ended (1, 2, 3) is for
# people.
CAN_MEND = {75, 130, 143}


class LookbookOperator(BaseOperator):
    """Runs one command of lookbook; the exit code decides between success, skipped, retry and failure."""

    template_fields = ("arguments",)

    def __init__(self, *, arguments: list[str], shard: str | None = None, **kwargs):
        super().__init__(**kwargs)
        self.arguments = arguments
        self.shard = shard
        self.hook = SubprocessHook()

    def execute(self, context):
        common = ["--config", "{{ params.settings }}", "--run-name", "{{ run_id }}"]
        common = [self.render_template(argument, context) for argument in common]
        shard = ["--shard", self.shard] if self.shard else []
        once = ["--if-changed", "--skip-exit-code", str(NOTHING_TO_DO)]
        code = self.hook.run_command([PROGRAM, *self.arguments, *shard, *common, *once]).exit_code
        if code == NOTHING_TO_DO:
            raise AirflowSkipException("nothing to do")
        if code in CAN_MEND or code < 0:
            raise AirflowException(f"exit code {code}: a later attempt may succeed")
        if code != 0:
            raise AirflowFailException(f"exit code {code}: see docs/operations.md")

    def on_kill(self):
        self.hook.send_sigterm()


def dated(parameter: str) -> str:
    """A parameter with the run's date in the place of {date}, as a template."""
    return f"{{{{ params.{parameter}.replace('{{date}}', (dag_run.logical_date or dag_run.run_after) | ds) }}}}"


def folder(name: str) -> str:
    """A folder of the run's output."""
    return f"{dated('output')}/{name}"


@task
def shards(params=None) -> list[str]:
    """The shards of a mapped stage."""
    count = params["shards"]
    return [f"{number}/{count}" for number in range(1, count + 1)]


with DAG(
    dag_id="lookbook_nightly",
    description="A fashion data set to tables, a model and a report",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": RETRY_DELAY,
        "execution_timeout": timedelta(hours=12),
        # What was skipped is as good as done.
        "trigger_rule": "none_failed",
    },
    params={
        "source": Param("/data/source", type="string", pattern="^/", description="folder of the data set"),
        "output": Param("/data/lookbook", type="string", pattern="^/", description="folder of all that is made"),
        "settings": Param("/etc/lookbook.toml", type="string", pattern="^/", description="settings file"),
        "shards": Param(4, type="integer", minimum=1, maximum=MOST_SHARDS, description="pieces of a mapped stage"),
    },
    doc_md=__doc__,
) as dag:
    source, output = dated("source"), dated("output")
    dataset, model = folder("dataset"), folder("model")
    segment_arguments = ["segment", "--catalogue", dataset, "--model", model, "--output", folder("features")]
    similarity_arguments = ["similarity", "--features", folder("features"), "--output", folder("similarity")]

    pieces = shards()
    convert = LookbookOperator(task_id="convert", arguments=["convert", "--source", source, "--output", dataset])
    train = LookbookOperator(
        task_id="train", arguments=["train", "--dataset", dataset, "--output", model, "--resume=auto"], pool="gpu"
    )
    segment_shards = LookbookOperator.partial(
        task_id="segment_shards", arguments=segment_arguments, pool="gpu"
    ).expand(shard=pieces)
    segment = LookbookOperator(task_id="segment", arguments=[*segment_arguments, "--merge"])
    similarity_shards = LookbookOperator.partial(
        task_id="similarity_shards", arguments=similarity_arguments
    ).expand(shard=pieces)
    similarity = LookbookOperator(task_id="similarity", arguments=[*similarity_arguments, "--merge"])
    report = LookbookOperator(
        task_id="report", arguments=["report", "--run", output, "--output", folder("report")]
    )

    convert >> train >> segment_shards >> segment >> similarity_shards >> similarity >> report
