"""Ends a private PostgreSQL with whoever started it.

    python postgres_keeper.py FOLDER PG_CTL

Waits until its standard input ends, as it does when its parent closes it or dies in whatever way;
then it stops the server whose data are in FOLDER and deletes FOLDER. Standard library only.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main(folder: Path, pg_ctl: str) -> None:
    while os.read(0, 1):
        pass
    if (folder / "data" / "postmaster.pid").exists():
        stop(folder, pg_ctl)
    for _ in range(100):  # the last processes of a killed server may still write
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def stop(folder: Path, pg_ctl: str) -> None:
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        owner = folder.stat()
        account = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    command = [pg_ctl, "stop", "-D", str(folder / "data"), "-m", "immediate", "-s", "-w"]
    # A cluster that a test has killed is stopped already: no complaint.
    subprocess.run(command, cwd="/", check=False, stderr=subprocess.DEVNULL, **account)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
