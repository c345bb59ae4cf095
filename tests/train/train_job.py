"""Does one job as a stage does: `python train_job.py JOB OUT [STOP_AFTER]`."""

import sys
from pathlib import Path

from aligntune.errors import AlignTuneError
from aligntune.train import reference
from aligntune.train.loop import Setting
from aligntune.train.policy import train_policy
from aligntune.train.ranks import read_job, together

if __name__ == "__main__":
    job, out = read_job(Path(sys.argv[1])), Path(sys.argv[2])
    last = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    steps = []

    def stopping():
        steps.append(1)
        return len(steps) == last

    setting = Setting(out, job.work, job.key, lambda *shown: None, stopping)
    try:
        if job.task == "reference":
            reference.begin(job.work)
            with together(job):
                count = reference.compute(job, setting)
            reference.collect(job, out, count)
        else:
            with together(job):
                train_policy(job.spec, job.model, job.data, setting, job.reference)
    except AlignTuneError as error:
        sys.stdout.write(f"{error}\n")
        raise SystemExit(error.exit_code) from error
