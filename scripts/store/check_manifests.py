"""Checks the manifests of pipelines/array against the schemas of their engines: check_manifests.py. Slurm has none: its script
has to be read by sh."""

import json
import pathlib
import re
import subprocess

import botocore.session
import botocore.validate
import kubernetes_validate
import yaml

FOLDER = pathlib.Path(__file__).parents[2] / "pipelines" / "array"


def kubernetes():
    jobs = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
    for job in jobs:
        kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    spec = jobs[0]["spec"]
    variables = {it["name"]: it["value"] for it in spec["template"]["spec"]["containers"][0]["env"]}
    assert variables["LOOKBOOK_SHARDS"] == str(spec["completions"]), "as many shards as completions"
    return len(jobs)


def aws_batch():
    shape = botocore.session.get_session().get_service_model("batch").operation_model("SubmitJob").input_shape
    jobs = json.loads((FOLDER / "aws_batch.json").read_text())
    for job in jobs:
        report = botocore.validate.ParamValidator().validate(job, shape)
        assert not report.has_errors(), report.generate_report()
    return len(jobs)


def slurm():
    path = FOLDER / "slurm.sh"
    subprocess.run(["sh", "-n", path], check=True)
    options = re.findall(r"^#SBATCH --[a-z-]+", path.read_text(), re.MULTILINE)
    assert options and len(options) == len(set(options)), "each option once"
    return len(options)


print(f"{kubernetes()} manifests of Kubernetes, {aws_batch()} of AWS Batch, {slurm()} options of Slurm are as they should be")
