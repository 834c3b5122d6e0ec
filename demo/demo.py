"""`make demo`: a real application, deployed by the real daemon from real servers, on this machine."""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo.stack import BUCKET, Stack, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

APPLICATION = Path(__file__).resolve().parent / "application"
NAME, GROUP = "demo-application", "demo-servers"
SYNTAX_ERROR = "\ndef unfinished(:\n"

BOLD, GREEN, RED, DIM, PLAIN = (
    ("\033[1m", "\033[32m", "\033[31m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "", "", "")
)


def main() -> int:
    """Run the demonstration; 0 when everything went as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--keep", action="store_true", help="leave everything running, and say how to stop it"
    )
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
    scratch = Path(tempfile.mkdtemp(prefix="deployment-demo-"))
    demo = Demo(Stack(scratch), scratch)
    try:
        demo.run()
        if options.keep:
            demo.is_kept = True
            demo.say_what_is_left()
    except (KeyboardInterrupt, SystemExit):
        print("\nInterrupted; cleaning up.", file=sys.stderr)
        return 130
    except BaseException:
        demo.keep_evidence()
        raise
    finally:
        if not demo.is_kept:
            demo.clean_up()
    return 0


class Demo:
    """One demonstration in one scratch directory."""

    def __init__(self, stack: Stack, scratch: Path) -> None:
        self.stack = stack
        self.scratch = scratch
        self.is_kept = False
        self.port = free_port()
        self.home = scratch / "host-1" / "srv" / "application"
        self.url = f"http://127.0.0.1:{self.port}"

    def run(self) -> None:
        self._start()
        self._deploy("1", expected="Succeeded")
        self._show_page("1")
        self._deploy("2", expected="Succeeded")
        self._show_page("2")
        self._deploy("3", expected="Failed", appended=SYNTAX_ERROR)
        self._show_page("2")
        self._finish()

    def _start(self) -> None:
        title("Starting a control endpoint, an S3 server and an agent")
        self.stack.start_control()
        say(f"control endpoint   {self.stack.control_url}")
        host = self.stack.add_host("host-1", {"Role": "demo"})
        self.stack.start_s3()
        say(f"S3 server          {self.stack.s3_url}")
        self.stack.start_agent(host)
        wait_for(
            lambda: self.stack.agentctl(host, "status").returncode == 0, timeout_s=20, what="the agent runs"
        )
        say(f"agent              registered as host-1, files in {host.directory}")
        self.codedeploy = self.stack.codedeploy()
        self.codedeploy.create_application(applicationName=NAME)
        self.codedeploy.create_deployment_group(
            applicationName=NAME,
            deploymentGroupName=GROUP,
            serviceRoleArn="arn:aws:iam::123456789012:role/deployments",
            deploymentConfigName="CodeDeployDefault.OneAtATime",
            onPremisesInstanceTagFilters=[{"Key": "Role", "Value": "demo", "Type": "KEY_AND_VALUE"}],
        )

    def _deploy(self, revision: str, *, expected: str, appended: str = "") -> None:
        """Upload a revision, deploy it, and print every event as it happens."""
        title(f"Deploying revision {revision}" + (" (with a mistake in it)" if appended else ""))
        key = f"demo-{revision}.tgz"
        self.stack.s3().put_object(Bucket=BUCKET, Key=key, Body=self._bundle(revision, appended))
        began = time.monotonic()
        deployment_id = self.codedeploy.create_deployment(
            applicationName=NAME,
            deploymentGroupName=GROUP,
            revision={
                "revisionType": "S3",
                "s3Location": {"bucket": BUCKET, "key": key, "bundleType": "tgz"},
            },
        )["deploymentId"]
        say(f"{deployment_id}, bundle s3://{BUCKET}/{key}")
        failed = self._follow(deployment_id)
        status = self.codedeploy.get_deployment(deploymentId=deployment_id)["deploymentInfo"]["status"]
        colour = GREEN if status == "Succeeded" else RED
        say(f"{colour}{BOLD}{status}{PLAIN} after {time.monotonic() - began:.1f} s")
        if failed:
            explain(failed)
        if status != expected:
            raise RuntimeError(f"The deployment of revision {revision} should have {expected.lower()}.")

    def _follow(self, deployment_id: str) -> dict[str, Any]:
        """Print events until the deployment is over; returns the one that failed, if any."""
        shown: set[str] = set()
        while True:
            info = self.codedeploy.get_deployment(deploymentId=deployment_id)["deploymentInfo"]
            target_ids = self.codedeploy.list_deployment_targets(deploymentId=deployment_id)["targetIds"]
            events = []
            if target_ids:
                target = self.codedeploy.get_deployment_target(
                    deploymentId=deployment_id, targetId=target_ids[0]
                )
                events = target["deploymentTarget"]["instanceTarget"]["lifecycleEvents"]
            for event in events:
                if event["status"] in ("Succeeded", "Failed") and event["lifecycleEventName"] not in shown:
                    shown.add(event["lifecycleEventName"])
                    show_event(event)
            if info["status"] in ("Succeeded", "Failed", "Stopped"):
                return next((event for event in events if event["status"] == "Failed"), {})
            time.sleep(0.05)

    def _bundle(self, revision: str, appended: str) -> bytes:
        """The application as a tgz, with this machine's paths filled in."""
        values = {"@HOME@": str(self.home), "@PORT@": str(self.port), "@REVISION@": revision}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for path in sorted(APPLICATION.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    content = filled_in(path.read_text(), values)
                    if path.name == "server.py":
                        content += appended
                    info = archive.gettarinfo(str(path), str(path.relative_to(APPLICATION)))
                    info.size = len(content.encode())
                    archive.addfile(info, io.BytesIO(content.encode()))
        return buffer.getvalue()

    def _show_page(self, revision: str) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        answer = json.load(opener.open(f"{self.url}/api/revision", timeout=5))
        say(f"GET {self.url}/api/revision  ->  {json.dumps(answer)}")
        if answer["revision"] != revision:
            raise RuntimeError(f"Revision {revision} should be running.")

    def _finish(self) -> None:
        host = self.stack.hosts["host-1"]
        title("What the host says of itself: agentctl status")
        for line in self.stack.agentctl(host, "status").stdout.splitlines():
            say(line)
        title("Where to look further")
        say(f"the page           {self.url}/")
        say(f"hook output        {host.root}/<group>/<deployment>/logs/scripts.log")
        say(f"the agent's log    {host.directory}/log/codedeploy-agent.log")
        say("an error id        .venv/bin/agentctl explain hook-failed")
        say("keep it running    make demo ARGS=--keep")

    def say_what_is_left(self) -> None:
        """Name what --keep leaves behind, and how to end it."""
        pids = [str(process.popen.pid) for process in self.stack.processes]
        pids.append((self.home.parent / "server.pid").read_text().strip())
        title("Everything is still running")
        say(f"stop it with       kill {' '.join(pids)}; rm -rf {self.scratch}")

    def keep_evidence(self) -> None:
        """After a failure: show the end of what the processes said, before it is gone."""
        for process in self.stack.processes:
            print(f"--- last output of {process.name}", file=sys.stderr)
            print("\n".join(process.output().splitlines()[-15:]), file=sys.stderr)

    def clean_up(self) -> None:
        """Afterwards nothing runs and nothing is left, however impatient the user is."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self.stack.close()
        pid_file = self.home.parent / "server.pid"
        if pid_file.exists():
            end_process(int(pid_file.read_text()))
        shutil.rmtree(self.scratch, ignore_errors=True)


def filled_in(text: str, values: Mapping[str, str]) -> str:
    """The text with its placeholders replaced."""
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text


def end_process(pid: int) -> None:
    """Afterwards the application's server does not run."""
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return


def show_event(event: Mapping[str, Any]) -> None:
    """One line for a lifecycle event that is over."""
    took = ""
    if event.get("startTime") and event.get("endTime"):
        took = f"{(event['endTime'] - event['startTime']).total_seconds():6.2f} s"
    colour = GREEN if event["status"] == "Succeeded" else RED
    say(f"  {event['lifecycleEventName']:<18} {colour}{event['status']:<9}{PLAIN} {DIM}{took}{PLAIN}")


def explain(event: Mapping[str, Any]) -> None:
    """Why an event failed, as the operator sees it."""
    diagnostics = event["diagnostics"]
    say(f"{BOLD}{event['lifecycleEventName']} failed: {diagnostics['errorCode']}{PLAIN}")
    say(diagnostics["message"])
    for line in diagnostics.get("logTail", "").splitlines():
        say(f"  {DIM}| {line}{PLAIN}")


def title(text: str) -> None:
    """A heading."""
    print(f"\n{BOLD}{text}{PLAIN}", flush=True)


def say(text: str) -> None:
    """A line below a heading."""
    print(f"  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
