"""Why a script got no session of its user, in words that say what to change. Pure, but for a look at the rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.lifecycle.launch_failure import describe_script
from agent.lifecycle.pam import service_file
from agent.lifecycle.script_failures import SessionBroken
from agent.processes import signal_name
from agent.protocol import ErrorCode

if TYPE_CHECKING:
    from agent.appspec import HookScript
    from agent.lifecycle.pam import Refusal

_OWN_RULES = "Rules for hooks alone, instead of those of su, go into /etc/pam.d/codedeploy-agent (docs/hooks.md has an example)."


def explain_refusal(script: HookScript, service: str, refusal: Refusal) -> CommandFailure:
    """The failure to report for a session that PAM refused."""
    said = f" Its modules said: {'; '.join(refusal.said)}." if refusal.said else ""
    user = _user(script)
    return CommandFailure(
        "hook-session-refused",
        f"{describe_script(script)} can't be started: PAM refused user {user} a session ({_rules(service)}): "
        f"{refusal.step} answered {refusal.answer!r} ({refusal.number}).{said} {_advice(user, service, refusal)}",
        code=ErrorCode.SCRIPT_FAILED,
        script_name=script.location,
    )


def explain_lost_session(script: HookScript, service: str, status: int) -> CommandFailure:
    """The failure to report where the process that was to open the session has ended without a word."""
    how = f"{signal_name(-status)} ended" if status < 0 else f"something called exit({status}) in"
    return SessionBroken(
        f"{describe_script(script)} was not started: {how} the process that was opening the session of user "
        f"{_user(script)} ({_rules(service)}). A module of PAM that crashes does that, and so does the kernel when "
        f"memory runs out: look into the kernel log (dmesg) and the journal. {_OWN_RULES}",
        script_name=script.location,
    )


def explain_broken_session(script: HookScript, service: str, reason: str) -> CommandFailure:
    """The failure to report where something has gone wrong around the script, so that its result is not known."""
    return SessionBroken(
        f"{describe_script(script)} has no result that is known, because of what happened to the session of user "
        f"{_user(script)} ({_rules(service)}): {reason}. Look into the journal, see what the script has done, "
        "and deploy again.",
        script_name=script.location,
    )


def session_timeout_failure(script: HookScript, service: str) -> CommandFailure:
    """The failure to report for a script whose time was over before it had a session."""
    return CommandFailure(
        "hook-session-timed-out",
        f"{describe_script(script)} failed to complete in {script.timeout_s:g} seconds: PAM had not opened the session "
        f"of user {_user(script)} by then ({_rules(service)}), so the script was never started. "
        "Modules that ask a server (LDAP, SSSD, Kerberos) wait for it, or for a file system on a network: "
        f"try `su {_user(script)} -c true` as root, and look into the journal. {_OWN_RULES}",
        code=ErrorCode.SCRIPT_TIMED_OUT,
        script_name=script.location,
    )


def _rules(service: str) -> str:
    path = service_file(service)
    return (
        f"service {service}, {path}"
        if path
        else f"service {service}, for which there is no file in /etc/pam.d"
    )


def _user(script: HookScript) -> str:
    return script.runas or "of the agent"


def _advice(user: str, service: str, refusal: Refusal) -> str:
    journal = f"The journal has more (journalctl -t codedeploy-agent, or the lines of {service} in auth.log or secure)."
    if service_file(service) is None:
        return f"Install what brings /etc/pam.d/{service}, or write it. {_OWN_RULES}"
    match refusal.number:  # of _pam_types.h, the same on every Linux
        case 13:
            advice = f"The account has expired: `chage -E -1 {user}` lets it live on; or name another user."
        case 12:
            advice = (
                "The password has expired, and nobody is there to type a new one. "
                f"`chage -l {user}` shows when; give the user a new one, or `chage -M -1 {user}`, or name another user."
            )
        case 10:
            advice = (
                f"Modules of that service don't know the user: compare with `getent passwd {user}`. {journal}"
            )
        case 1 | 2 | 28:
            advice = (
                f"A module that the rules name is not installed, or can't be loaded. {journal} {_OWN_RULES}"
            )
        case 6 | 7:
            advice = (
                f"The account has expired or is incomplete (`chage -l {user}` shows that; without a line in /etc/shadow it "
                "fails), or a rule forbids it, such as pam_nologin (while /etc/nologin exists), pam_access, pam_time or pam_deny. "
                f"{journal} {_OWN_RULES}"
            )
        case _:
            advice = f"{journal} {_OWN_RULES}"
    return advice
