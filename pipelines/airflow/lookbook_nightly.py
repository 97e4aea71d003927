"""lookbook every night with Airflow 3: one task a stage, shards mapped, retries where a retry can mend.

The program is the one that LOOKBOOK_PROGRAM names, else `lookbook` of the PATH. The pool `gpu` must be there:

    airflow pools set gpu 1 "stages of lookbook that run the network"

Source, catalogue and output are those of the settings file ([convert] source, [segment] catalogue, [run] output), as for
make and cron; a parameter of that name beats it. They may hold {date}: it becomes the date of the run, so that a back-fill
reads and writes what belongs to each night. docs/operations.md has the rest.
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
    """One stage of `lookbook run`; the exit code decides between success, skipped, retry and failure."""

    template_fields = ("places",)

    def __init__(self, *, stage: str, shard: str | None = None, merge: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.stage = stage
        self.shard = shard
        self.merge = merge
        self.places = {name: dated(name) for name in ("source", "catalogue", "output")}
        self.hook = SubprocessHook()

    def execute(self, context):
        common = ["--config", "{{ params.settings }}", "--run-name", "{{ run_id }}"]
        command = [PROGRAM, "run", "--only", self.stage, *[self.render_template(it, context) for it in common]]
        # What is not named here is taken from the settings file.
        for name, place in self.places.items():
            command += [f"--{name}", place] if place else []
        command += ["--shard", self.shard] if self.shard else []
        command += ["--merge"] if self.merge else []
        command += ["--if-changed", "--skip-exit-code", str(NOTHING_TO_DO)]
        code = self.hook.run_command(command).exit_code
        if code == NOTHING_TO_DO:
            raise AirflowSkipException("nothing to do")
        if code in CAN_MEND or code < 0:
            raise AirflowException(f"exit code {code}: a later attempt may succeed")
        if code != 0:
            raise AirflowFailException(f"exit code {code}: see docs/operations.md")

    def on_kill(self):
        self.hook.send_sigterm()


def dated(parameter: str) -> str:
    """A parameter with the run's date in the place of {date}, as a template; empty if it is not set."""
    return f"{{{{ (params.{parameter} or '').replace('{{date}}', (dag_run.logical_date or dag_run.run_after) | ds) }}}}"


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
        "settings": Param("/etc/lookbook.toml", type="string", pattern="^/", description="settings file"),
        "source": Param(None, type=["null", "string"], pattern="^(/|[a-z0-9]+://)", description="data set, if not that of the settings"),
        "catalogue": Param(None, type=["null", "string"], pattern="^(/|[a-z0-9]+://)", description="photos, if not those of the settings"),
        "output": Param(None, type=["null", "string"], pattern="^(/|[a-z0-9]+://)", description="folder, if not that of the settings"),
        "shards": Param(4, type="integer", minimum=1, maximum=MOST_SHARDS, description="pieces of a mapped stage"),
    },
    doc_md=__doc__,
) as dag:
    pieces = shards()
    convert = LookbookOperator(task_id="convert", stage="convert")
    train = LookbookOperator(task_id="train", stage="train", pool="gpu")
    segment_shards = LookbookOperator.partial(task_id="segment_shards", stage="segment", pool="gpu").expand(shard=pieces)
    segment = LookbookOperator(task_id="segment", stage="segment", merge=True)
    similarity_shards = LookbookOperator.partial(task_id="similarity_shards", stage="similarity").expand(shard=pieces)
    similarity = LookbookOperator(task_id="similarity", stage="similarity", merge=True)
    report = LookbookOperator(task_id="report", stage="report")

    convert >> train >> segment_shards >> segment >> similarity_shards >> similarity >> report
