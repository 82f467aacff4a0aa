"""`vargpt doctor`: what this machine can do, and whether the settings act. Exit code 1 when something is wrong."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vargpt_lightning.doctor.checks import all_checks
from vargpt_lightning.doctor.findings import examine_all
from vargpt_lightning.doctor.report import line, markdown, verdict
from vargpt_lightning.utils.arguments import Parser, device_name
from vargpt_lightning.utils.errors import UserError, near_path
from vargpt_lightning.utils.files import write_bytes
from vargpt_lightning.utils.paths import output_file, user_path

EXAMPLE = """examples:
  vargpt doctor                                   # this machine, on a small model with fresh weights
  vargpt doctor runs/openmoji --out doctor.md     # the settings of a run as well
  vargpt doctor experiments/openmoji.yaml --device cuda:1
  vargpt doctor --full                            # every stage under ddp, fsdp, fsdp2; resume; export
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt doctor",
        description="Find out what this machine can do, each by a small real call: versions, devices, memory, disk, "
        "kernels, groups of processes; whether prompt, guidance and seed act on drawings; whether training has the "
        "losses that it should. The exit code is 1 when something is wrong.",
        epilog=EXAMPLE,
    )
    result.add_argument(
        "run", nargs="?", type=user_path, metavar="WHAT", help="a run, a converted folder or an experiment file"
    )
    result.add_argument("--device", type=device_name, metavar="NAME", help="such as cpu or cuda:1 (a GPU if there is)")
    result.add_argument("--full", action="store_true", help="also what takes minutes: strategies, resume, export")
    result.add_argument("--out", type=user_path, metavar="FILE", help="write a report in Markdown, for an issue")
    return result


def main(argv: list[str]) -> int:
    """Look at everything, print a line for each check, and return 1 if one has failed."""
    arguments = parser().parse_args(argv)
    if arguments.run is not None and not arguments.run.exists():
        raise UserError(f"{arguments.run}: there is no such run or experiment file{near_path(arguments.run)}")
    if arguments.out is not None:
        output_file(arguments.out)
    findings = []
    for finding in examine_all(all_checks(arguments.run, arguments.device, arguments.full, Path.cwd())):
        findings.append(finding)
        print(line(finding), flush=True)
    print(verdict(findings))
    if arguments.out is not None:
        write_bytes(arguments.out, markdown(findings, " ".join(["vargpt doctor", *argv])).encode())
        print(f"report: {arguments.out}")
    failed = [finding for finding in findings if finding.status == "failed"]
    for finding in failed:
        sys.stderr.write(f"vargpt doctor: {finding.part}: {finding.name}: {finding.said}\n")
    return 1 if failed else 0
