"""A command on a real disk that is full, and again once it has room.

    unshare --user --map-root-user --mount python small_disk.py DISK KIBIBYTES COMMAND ...

DISK is a directory that the disk is mounted on, for this process and what it starts alone. Prints
the exit codes as a JSON list; afterwards what was on the disk is in `DISK-copy`.
"""

import json
import shutil
import subprocess
import sys

PLENTY = "2g"


def main(disk: str, size: str, *command: str) -> None:
    mount("-t", "tmpfs", "-o", f"size={size}k", "none", disk)
    codes = [run(command)]
    mount("-o", f"remount,size={PLENTY}", disk)
    codes.append(run(command))
    shutil.copytree(disk, f"{disk}-copy", symlinks=True)
    json.dump(codes, sys.stdout)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def run(command: tuple[str, ...]) -> int:
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode


if __name__ == "__main__":
    main(*sys.argv[1:])
