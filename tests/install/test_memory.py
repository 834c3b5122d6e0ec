"""What the size of a revision costs in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

FILES, DIRECTORIES = 100_000, 100
MOST_MIB = 60

# A process of its own: memory that the test session has used before would hide what Install takes.
SCRIPT = """
import json, os, resource, sys
from pathlib import Path
from agent.appspec import parse_appspec
from agent.install import InstallOptions, InstallRequest, install

base, files, directories, processes = Path(sys.argv[1]), *map(int, sys.argv[2:5])
text = f"version: 0.0\\nos: linux\\nfiles: [{{source: app, destination: {base}/dest/app}}]\\n"
text += sys.argv[5].replace("@BASE@", str(base))

def make(revision, changed):
    for number in range(directories):
        (base / revision / "app" / f"directory-{number}").mkdir(parents=True)
        descriptor = os.open(base / revision / "app" / f"directory-{number}", os.O_RDONLY)
        for name in range(number, files, directories):
            file = os.open(f"file-{name}", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=descriptor)
            os.write(file, b"%b %d" % (changed, name))
            os.utime(file, (1_500_000_000, 1_500_000_000))
            os.close(file)
        os.close(descriptor)

def grown(revision):
    request = InstallRequest(appspec=parse_appspec(text.encode(), path="appspec.yml"), archive=base / revision,
                             instructions_directory=base / "instructions", group_id="g", deployment_id=revision,
                             options=InstallOptions(processes=processes))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # A fork, like a worker: what the system counts as its peak begins at its own start.
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        summary = install(request)
        # Of a second process, too: it is gone by now.
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        done = summary.created + summary.replaced + summary.unchanged
        os.write(writing, json.dumps([(peak - start) / 1024, done]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    return json.loads(os.read(reading, 1000))

def give_away():
    # What an AfterInstall hook does with chown -R; without root, it is the mode.
    for directory, _, names in os.walk(base / "dest"):
        for name in names:
            path = os.path.join(directory, name)
            os.chown(path, 1234, 1234) if os.geteuid() == 0 else os.chmod(path, 0o600)

def adjusted():
    give_away()
    return grown("two")

make("one", b"one")
make("two", b"two")
seen = {"fresh": grown("one"), "unchanged": grown("one"), "changed": grown("two"), "adjusted": adjusted()}
print(json.dumps(seen))
"""


PERMISSIONS = "permissions: [{object: '@BASE@/dest/app', mode: 640, type: [file]}]"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("processes", "permissions"),
    [pytest.param(1, "", id="one process"), pytest.param(2, PERMISSIONS, id="permissions, two processes")],
)
def test_an_install_of_a_hundred_thousand_files_takes_little_memory(
    place: Path, processes: int, permissions: str
) -> None:
    """On a small host the application needs the memory; an Install that grows with the revision takes it."""
    if place.parts[:3] != ("/", "dev", "shm"):
        pytest.skip("there is no file system in memory here, and a disk takes minutes for so many files")
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, place, str(FILES), str(DIRECTORIES), str(processes), permissions],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )

    grown: dict[str, tuple[float, int]] = json.loads(done.stdout.splitlines()[-1])
    assert {FILES} == {files for _mib, files in grown.values()}
    assert {} == {kind: mib for kind, (mib, _files) in grown.items() if mib > MOST_MIB}
