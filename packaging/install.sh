#!/bin/sh
# Installs the agent from the tarball that this file lies in; docs/install.md.
#
# The program gets a directory of its own for each installation, and `current` points to the one that is started from
# now on. Running agents and workers keep theirs for as long as they run. Nothing but that directory belongs to this
# script below /opt/codedeploy-agent, where state and deployment root are: it never has to tell a program from data.
#
# Everything is written beside its place first, and tried; what can fail for want of space fails there. Then come
# renames. Needs a POSIX shell, and what every Linux has: coreutils or busybox.
set -eu
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

units='codedeploy-agent.service codedeploy-agent-unprivileged.service'
unit_directory=/usr/lib/systemd/system
conf_directory=/etc/codedeploy-agent/conf
suffix=.codedeploy-new # of what is written beside its place

root=
prefix=
action=install
enable=
purge=
dry_run=
staged=
new=
switched=

usage() {
    cat <<'END'
Usage: ./install.sh [--enable] [--dry-run] [--prefix DIR] [--root DIR]
       ./install.sh --uninstall [--purge] [--prefix DIR] [--root DIR]

Installs the deployment agent, or replaces an older version. A running agent is restarted once its commands are done.

  --enable      start the agent now, and at every boot
  --dry-run     check the host, say what would be done, and change nothing
  --uninstall   stop the agent and remove it; configuration, state, deployment root and logs stay
  --purge       with --uninstall: these go, too; what deployments have installed stays
  --prefix DIR  where the program goes (/opt/codedeploy-agent/program); give it again for an upgrade
  --root DIR    work on the system mounted at DIR, such as an image; no service is started or stopped
  --help        print this

Exit codes: 0 done, 1 not done, 2 bad option. Nothing has changed unless the message says otherwise.
END
}

say() { printf '%s\n' "$1"; }

fail() {
    printf 'install.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

main() {
    parse_options "$@"
    here=$(cd -P "$(dirname "$0")" && pwd -P)
    # The installed copy, for --uninstall and --tidy, knows where it is.
    case $here in */versions/*/dist) prefix=${prefix:-${here%/versions/*}} ;; esac
    prefix=${prefix:-/opt/codedeploy-agent/program}
    check_root
    case $action in
        tidy) tidy ;;
        uninstall) uninstall ;;
        install) install ;;
    esac
}

parse_options() {
    while [ $# -gt 0 ]; do
        case $1 in
            --root | --prefix)
                [ $# -gt 1 ] || fail "$1 needs a directory. See install.sh --help." 2
                option=$1
                value=$2
                shift 2
                set -- "$option=$value" "$@"
                continue
                ;;
            # A variable of the caller's that is not set must not mean this host.
            --root= | --root=/ | --prefix=) fail "$1 names no directory of its own. See install.sh --help." 2 ;;
            --root=*) root=${1#*=} ;;
            --prefix=*) prefix=${1#*=} ;;
            --enable) enable=yes ;;
            --dry-run) dry_run=yes ;;
            --uninstall) action=uninstall ;;
            --purge) purge=yes ;;
            --tidy) action=tidy ;; # called by the units after each start
            -h | --help)
                usage
                exit 0
                ;;
            *) fail "Unknown option $1. See install.sh --help." 2 ;;
        esac
        shift
    done
    [ -z "$purge" ] || [ "$action" = uninstall ] || fail '--purge goes with --uninstall only.' 2
    [ -z "$enable$dry_run" ] || [ "$action" = install ] || fail '--enable and --dry-run do not go with --uninstall.' 2
    case $prefix in
        '' | /?*/?*) prefix=${prefix%/} ;;
        *) fail "--prefix must be an absolute path below a top-level directory, not '$prefix'." 2 ;;
    esac
    # They are written into units and lists.
    case $prefix$root in
        *[!A-Za-z0-9/._+-]* | *..*) fail "--prefix and --root may hold letters, digits and ._+- only, and no '..'." 2 ;;
    esac
}

# -- Checks: nothing is changed by them ---------------------------------------------------------------------

check_root() {
    [ "$(uname -s)" = Linux ] || fail "This is $(uname -s); the agent runs on Linux."
    [ "$(id -u)" -eq 0 ] || fail "This user ($(id -un)) can't install it. Run it as root: sudo $0"
    [ -n "$root" ] || return 0
    root=$(cd -P "$root" 2>/dev/null && pwd -P) || fail 'There is no directory at --root. Mount the image first.'
    case $root in *[!A-Za-z0-9/._+-]*) fail "--root leads to '$root', which may hold letters, digits and ._+- only." ;; esac
    [ "$root" != / ] || fail '--root leads to this host itself. Leave it out.'
}

check_host() {
    [ -f "$here/program/version" ] ||
        fail "$here holds no program to install. Unpack the whole tarball, and run the install.sh in it."
    version=$(cat "$here/program/version")
    check_places
    check_machine
    check_packages
    check_files
    [ -n "$root" ] || check_running
    check_space
}

# The next directory upwards that is there, without links.
existing_parent() {
    parent=$1
    while [ ! -d "$parent" ]; do parent=${parent%/*}; done
    (cd -P "$parent/" && pwd -P)
}

# A link of the image with an absolute target leads into the host that the image is mounted on.
check_places() {
    for directory in "$prefix" /usr/bin "$unit_directory" "$conf_directory" /usr/share /opt/codedeploy-agent; do
        found=$(existing_parent "$root$directory")
        case $found/ in
            "$root"/*) ;;
            *) fail "$root$directory leads to $found, out of $root. Use 'chroot $root' and run install.sh inside." ;;
        esac
        # What `test -w` says to root is not the truth about every file system; a file is.
        probe=$found/.codedeploy-probe.$$
        # shellcheck disable=SC2188 # the file is all that is wanted
        (: >"$probe") 2>/dev/null || fail "Nothing can be written to $found. Is it mounted read-only, or full?"
        rm -f "$probe"
    done
}

check_machine() {
    # e_machine of the ELF header
    case $(od -An -tu1 -j18 -N1 "$here/program/bin/python3" | tr -d ' ') in
        62) built_for=x86_64 ;;
        183) built_for=aarch64 ;;
        *) built_for=unknown ;;
    esac
    # The image of another architecture may be mounted; then the trial in it decides.
    if [ -n "$root" ]; then return 0; fi
    [ "$(uname -m)" = "$built_for" ] ||
        fail "This tarball is for $built_for, and this machine is $(uname -m). Fetch the one for $(uname -m)."
    glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || glibc='no glibc (Alpine and others with musl have none)'
    told=$("$here/program/bin/python3" -I -c 'import ssl' 2>&1) ||
        fail "The program does not run here: $told
This host has $glibc. Where a GLIBC version is not found above, the host is too old for this build; where permission
is denied, unpack the tarball on a file system that is not mounted with noexec."
}

# Version of the installed package of this name, and which kind of package it is; nothing where there is none.
installed_package() {
    status=$root/var/lib/dpkg/status
    if [ -f "$status" ]; then
        sed -n '/^Package: codedeploy-agent$/,/^$/p' "$status" | sed -n '/^Status: .* installed$/,$s/^Version: /deb /p'
    fi
    # Asked about a root without a database, rpm would make one.
    if command -v rpm >/dev/null 2>&1 && [ -n "$(ls "$root/var/lib/rpm" "$root/usr/lib/sysimage/rpm" 2>/dev/null)" ]; then
        rpm --root "${root:-/}" -q --queryformat 'rpm %{EPOCHNUM}:%{VERSION}\n' codedeploy-agent 2>/dev/null |
            grep '^rpm ' || :
    fi
}

check_packages() {
    package=$(installed_package | head -n 1)
    case $package in
        '') ;;
        *' 1:'*) fail "This host has this agent as a package ($package). Upgrade it with the newer package, or remove it \
first (apt remove codedeploy-agent, dnf remove codedeploy-agent): configuration and state stay." ;;
        *) fail "This host has another codedeploy-agent as a package ($package). Install the deb or rpm of this agent, \
which takes over from it; or save $conf_directory and remove that package first." ;;
    esac
}

# Files that somebody else has put where ours go.
check_files() {
    foreign=
    while read -r _ source destination; do
        place=$root$destination
        if [ ! -e "$place" ] && [ ! -L "$place" ]; then continue; fi
        if is_ours "$destination" || is_same "$source" "$place"; then continue; fi
        foreign="$foreign $place"
    done <<END
$(wanted_files)
END
    [ -z "$foreign" ] ||
        fail "These files are there already, and not from this installer:$foreign. Remove the agent that they belong to, \
or the files. State and deployment root are not among them."
}

is_ours() { grep -qxF -e "$1" "$root$prefix/current/dist/files" 2>/dev/null; }

is_same() {
    case $1 in
        '->'*) [ "$(readlink "$2")" = "${1#->}" ] ;;
        *) [ ! -L "$2" ] && cmp -s "$here/$1" "$2" ;;
    esac
}

check_running() {
    namespace=$(readlink /proc/self/ns/mnt)
    ours=$(existing_parent "$prefix")/versions
    for process in /proc/[0-9]*; do
        [ -r "$process/cmdline" ] || continue
        name=$(tr '\0' '\n' 2>/dev/null <"$process/cmdline" | head -n 1) || continue
        name=${name%%:*}
        [ "${name##*/}" = codedeploy-agent ] || continue
        case $(readlink "$process/exe") in "$ours"/*) continue ;; esac # it has that name, too, in ps
        [ "$(readlink "$process/ns/mnt")" = "$namespace" ] || continue # that of a container
        refuse_beside "${process#/proc/}" "$name"
    done
    [ -f "$conf_directory/codedeployagent.yml" ] || return 0
    pid=$(running_pid)
    [ -n "$pid" ] || return 0
    case $(readlink "/proc/$pid/exe") in
        "$ours"/*) ;;
        *) refuse_beside "$pid" "$(readlink "/proc/$pid/exe")" ;;
    esac
}

# Of an agent of this kind, however it was started. One that has ended is still named in the answer; its exit code says
# so (3, and 4 where nobody knows). One that does not work, as after SIGSTOP, is there all the same (1).
running_pid() {
    told=$("$here/program/bin/agentctl" status --json --last 0 2>/dev/null) || [ "$?" -eq 1 ] || return 0
    say "$told" | sed -n 's/^ *"pid": *\([0-9]*\).*/\1/p' | head -n 1
}

refuse_beside() {
    fail "Another agent runs here: pid $1, $2. Two would take each other's commands. Stop it and keep it from starting \
again (systemctl disable --now codedeploy-agent), and run this again."
}

check_space() {
    needed=$(du -sk "$here" | sed 's/[^0-9].*//')
    needed=$((needed + needed / 10 + 1024))
    place=$(existing_parent "$root$prefix")
    free=$(df -Pk "$place" | sed -n '2s/.* \(-*[0-9]*\)  *[0-9]*% .*/\1/p')
    [ "${free:-$needed}" -ge "$needed" ] ||
        fail "$place has $free KiB free, and $needed KiB are needed. Free some space, or choose another --prefix."
}

# -- What goes where ----------------------------------------------------------------------------------------

# Mode, source (below the unpacked tarball, or -> and the target of a link) and destination; one a line.
wanted_files() {
    for name in $units; do say "644 systemd/$name $unit_directory/$name"; done
    list_files 755 'commands/*' /usr/bin
    list_files 644 'systemd/sysusers.d/*.conf' /usr/lib/sysusers.d
    list_files 644 'systemd/tmpfiles.d/*.conf' /usr/lib/tmpfiles.d
    list_files 644 'systemd/system-preset/*.preset' /usr/lib/systemd/system-preset
    for section in 1 5 8; do list_files 644 "man/*.$section" "/usr/share/man/man$section"; done
    list_completions
    if knows_growing_delays; then
        for name in $units; do say "644 systemd/restart-delays.conf $unit_directory/$name.d/restart-delays.conf"; done
    fi
    say "- ->$prefix/current/bin/agentctl /usr/bin/agentctl"
    # Where scripts of the existing agents look for them.
    say '- ->/usr/bin/codedeploy-agent /opt/codedeploy-agent/bin/codedeploy-agent'
    say '- ->/usr/bin/codedeploy-local /opt/codedeploy-agent/bin/codedeploy-local'
}

list_files() {
    for file in "$here"/$2; do
        if [ -f "$file" ]; then say "$1 ${file#"$here"/} $3/${file##*/}"; fi
    done
}

list_completions() {
    for file in "$here"/completions/*.*; do
        name=${file##*/}
        case $name in
            *.bash) place=/usr/share/bash-completion/completions/${name%.bash} ;;
            *.zsh)
                place=/usr/share/zsh/site-functions/_${name%.zsh}
                # The zsh of Debian looks into this one alone.
                say "644 completions/$name /usr/share/zsh/vendor-completions/_${name%.zsh}"
                ;;
            *.fish) place=/usr/share/fish/vendor_completions.d/$name ;;
            *) continue ;;
        esac
        say "644 completions/$name $place"
    done
}

# From systemd 254 on; an older one would complain of the words.
knows_growing_delays() {
    if [ -n "$root" ]; then
        known=$(chroot "$root" systemctl --version 2>/dev/null) || known=
    else
        known=$(systemctl --version 2>/dev/null) || known=
    fi
    known=$(say "$known" | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
    [ "${known:-0}" -ge 254 ]
}

# -- Installation -------------------------------------------------------------------------------------------

install() {
    check_host
    if [ -n "$dry_run" ]; then
        say "Would install codedeploy-agent $version to $root$prefix; the host has what it needs. And these files:"
        wanted_files | sed "s|.* \(/[^ ]*\)\$|  $root\1|"
        say "Configuration that is there stays: $root$conf_directory"
        exit 0
    fi
    mkdir -p "$root$prefix/versions" || fail "$root$prefix can't be made."
    base=$(cd -P "$root$prefix" && pwd -P)
    lock || fail "Another install.sh is at work in $base. Wait for it."
    trap clean_up EXIT
    trap 'exit 1' HUP INT TERM
    stage_program
    stage_files
    stage_configuration
    commit
    trap - EXIT
    remove_versions_but "$name"
    unlock # the units tidy up when they start
    start
}

# Two at once would take each other's unfinished files away, and the version that the other has just installed.
lock() {
    exec 9>"$base/.lock"
    ! command -v flock >/dev/null 2>&1 || flock -n 9 || return 1
    # A removal that has just ended took the file away, and the next one would lock another.
    case $(readlink "/proc/$$/fd/9") in *' (deleted)') return 1 ;; esac
}

unlock() { exec 9>&-; }

stage_program() {
    rm -rf "$base"/versions/.new* # what was cut off earlier
    new=$base/versions/.new.$$
    cp -RP "$here/program" "$new" || incomplete "$new"
    mkdir "$new/dist"
    for part in conf systemd commands man completions copyright install.sh; do
        [ -e "$here/$part" ] || continue
        cp -RP "$here/$part" "$new/dist/" || incomplete "$new"
    done
    # -: it can go wrong without harm. +: also after the start of the unprivileged agent.
    cat >"$new/dist/tidy.conf" <<END || incomplete "$new"
# After an upgrade, the old version stays for as long as something runs it; it goes at the next start after that.
[Service]
ExecStartPost=-+/bin/sh $prefix/current/dist/install.sh --tidy --prefix=$prefix
END
    # Whoever unpacked it, and under whatever umask.
    chmod -R a+rX,go-w "$new" || incomplete "$new"
    number=1
    while [ -e "$base/versions/$version-$number" ]; do number=$((number + 1)); done
    name=$version-$number
    # It must run from the place where it is, not only from where it was unpacked: that may be mounted with noexec.
    if [ -z "$root" ]; then
        told=$("$new/bin/agentctl" version 2>&1) || fail "The program does not run from $base: $told"
    elif [ -x "$root/bin/sh" ]; then
        told=$(chroot "$root" "$prefix/versions/${new##*/}/bin/agentctl" version 2>&1) ||
            fail "The program ($built_for) does not run in $root: $told"
    else
        say "note: $root has no /bin/sh, so the program was not tried in it."
    fi
}

incomplete() {
    fail "$1 could not be written ($(df -Pk "${1%/*}" | sed -n '2s/  */ /gp')). Free some space, and run this again. \
Nothing has changed: what was installed before is still in use."
}

stage_files() {
    : >"$new/dist/files"
    while read -r mode source destination; do
        stage "$mode" "$source" "$destination"
    done <<END
$(wanted_files)
END
    for unit in $units; do stage 644 "${new#"$root"}/dist/tidy.conf" "$unit_directory/$unit.d/tidy.conf"; done
}

stage() {
    place=$root$3
    say "$3" >>"$new/dist/files" || incomplete "$new"
    write_beside "$@"
}

write_beside() {
    place=$root$3
    mkdir -p "${place%/*}" || incomplete "$place"
    rm -f "$place$suffix"
    staged="$staged $place"
    case $2 in
        '->'*) ln -s "${2#->}" "$place$suffix" || incomplete "$place" ;;
        /*) cp "$root$2" "$place$suffix" || incomplete "$place" ;;
        *) cp "$here/$2" "$place$suffix" || incomplete "$place" ;;
    esac
    [ "$1" = - ] || chmod "$1" "$place$suffix"
}

# What somebody has changed stays. What is still as an earlier version brought it is replaced, as package managers do.
stage_configuration() {
    for file in codedeployagent.yml codedeployagent-unprivileged.yml logrotate; do
        [ -f "$here/conf/$file" ] || continue
        destination=$conf_directory/$file
        beside=$destination.new
        # logrotate would read whatever else lies in its directory.
        [ "$file" != logrotate ] || destination=/etc/logrotate.d/codedeploy-agent
        before=$base/current/dist/conf/$file
        if [ ! -e "$root$destination" ] || cmp -s "$before" "$root$destination"; then
            write_beside 644 "conf/$file" "$destination"
        elif ! cmp -s "$here/conf/$file" "$root$destination" && ! cmp -s "$here/conf/$file" "$before"; then
            write_beside 644 "conf/$file" "$beside"
            say "  $root$destination is as you wrote it; the new default is $root$beside"
        fi
    done
}

commit() {
    sync -f "$base" 2>/dev/null || sync
    old_files=$(cat "$base/current/dist/files" 2>/dev/null) || old_files=
    new_files=$(cat "$new/dist/files")
    mv "$new" "$base/versions/$name" || fail "$new can't be renamed. Nothing has changed."
    new=$base/versions/$name
    for place in $staged; do
        mv -f "$place$suffix" "$place" || fail "$place can't be replaced. Some of the files around the program are new; \
the program is the old one, and works. Fix the cause, and run this again."
        say "+ $place"
    done
    point_current "versions/$name"
    switched=yes
    say "+ $base/current -> versions/$name"
    for file in $old_files; do
        say "$new_files" | grep -qxF -e "$file" || remove_file "$file"
    done
    if [ -z "$root" ] && command -v restorecon >/dev/null 2>&1; then restorecon -RF "$base" 2>/dev/null || :; fi
}

# In one step, so that no command finds nothing.
point_current() {
    rm -f "$base"/.current*
    ln -s "$1" "$base/.current.$$" || incomplete "$base/.current.$$"
    mv -T "$base/.current.$$" "$base/current" 2>/dev/null || {
        rm -f "$base/.current.$$"
        ln -sfn "$1" "$base/current" # a busybox without mv -T
    }
}

# After a failure: nothing of the attempt is left.
clean_up() {
    for place in $staged; do
        rm -f "$place$suffix"
        case $place in */codedeploy-agent*/*) rmdir "${place%/*}" 2>/dev/null || : ;; esac
    done
    if [ -n "$new" ] && [ -z "$switched" ]; then rm -rf "$new"; fi
    if [ ! -L "$root$prefix/current" ]; then
        rm -f "$root$prefix/.lock"
        rmdir "$root$prefix/versions" "$root$prefix" 2>/dev/null || :
    fi
}

start() {
    say "codedeploy-agent $version is installed."
    if [ -n "$root" ]; then
        if [ -n "$enable" ]; then
            enable_in_image
        else
            say 'It does not start with the image yet: give --enable as well, or enable codedeploy-agent.service in it.'
        fi
        return
    fi
    if ! systemd_runs; then
        say "systemd does not run here. Start the agent with: codedeploy-agent start (after an upgrade: restart)"
        return
    fi
    systemctl daemon-reload || :
    for unit in $units; do
        case $(systemctl is-active "$unit") in
            active | activating | reloading) ;;
            *) continue ;;
        esac
        # Not waited for: the agent first lets running commands come to their end, and one of them may have called us.
        systemctl --no-block restart "$unit" || fail "It is installed, but $unit could not be restarted: systemctl restart $unit"
        say "$unit restarts as soon as its running commands are done."
        restarting=yes
    done
    if [ -n "$enable" ]; then enable_now; fi
    [ -n "${restarting-}$enable" ] || next_steps
}

enable_now() {
    systemctl enable --quiet codedeploy-agent.service || fail 'It is installed, but systemctl could not enable it.'
    [ -n "${restarting-}" ] || systemctl start codedeploy-agent.service ||
        fail 'It is installed, but did not start. journalctl -u codedeploy-agent says why. Fix that, and then: systemctl start codedeploy-agent'
    say 'The agent runs, and starts with every boot. See: agentctl status'
}

enable_in_image() {
    wants=$root/etc/systemd/system/multi-user.target.wants
    mkdir -p "$wants"
    ln -sf "$unit_directory/codedeploy-agent.service" "$wants/codedeploy-agent.service"
    say "+ $wants/codedeploy-agent.service"
}

next_steps() {
    cat <<END
Next:
  1. $conf_directory/codedeployagent.yml has every setting explained. On EC2 the defaults do. Elsewhere, write
     $conf_directory/codedeploy.onpremises.yml: region, iam_user_arn, aws_access_key_id, aws_secret_access_key
  2. systemctl enable --now codedeploy-agent
  3. agentctl status
Remove it with: $prefix/current/dist/install.sh --uninstall
END
}

# -- Removal ------------------------------------------------------------------------------------------------

uninstall() {
    if [ ! -d "$root$prefix/versions" ]; then
        [ -n "$purge" ] || fail "There is nothing of this installer in $root$prefix."
        purge_alone
        return
    fi
    base=$(cd -P "$root$prefix" && pwd -P)
    if [ -n "$purge" ] && in_hook; then
        fail 'Called by a hook of the agent, whose own state would be purged. Do it from outside of a deployment.'
    fi
    check_mounts
    lock || fail "Another install.sh is at work in $base. Wait for it."
    if [ -n "$(installed_package)" ]; then
        [ -z "$purge" ] || check_packages
        removed='A package has taken over here: its files and its service stay.'
    else
        remove_outside
        removed='The agent is removed.'
    fi
    rm -f "$base/current" "$base"/.current*
    rm -rf "$base"/versions/.new*
    remove_versions_but ''
    rm -f "$base/.lock" # last: it is held until here
    rmdir "$base/versions" "$base" "$root/opt/codedeploy-agent" 2>/dev/null || :
    [ -n "$root" ] || ! systemd_runs || systemctl daemon-reload || :
    if [ -d "$base/versions" ]; then report_workers; fi
    say "$removed"
    if [ -n "$purge" ]; then purge_data; else say 'Configuration, state, deployment root and logs are still there.'; fi
}

# Service, and files outside of the program's directory.
remove_outside() {
    files=$(cat "$base/current/dist/files" 2>/dev/null) || files=
    [ -n "$root" ] || stop
    for file in $files; do remove_file "$file"; done
    rm -f "$root/etc/systemd/system/multi-user.target.wants/codedeploy-agent.service"
    rmdir "$root/opt/codedeploy-agent/bin" 2>/dev/null || :
}

# What an agent that was removed earlier has left, unless it is another agent's by now.
purge_alone() {
    check_packages
    check_mounts
    [ -n "$root" ] || check_running
    purge_data
}

report_workers() {
    left=$(find "$base/versions" -mindepth 1 -maxdepth 1 | head -n 1)
    say "Running processes still use $left. Remove it when they have ended:"
    say "  sh $left/dist/install.sh --uninstall"
    [ -z "$purge" ] || fail 'The agent is removed, but nothing was purged while they run. Run the line above, with --purge.'
}

stop() {
    if systemd_runs; then
        wait=
        if in_hook; then wait=--no-block; fi # the agent would wait for the hook, and the hook for the agent
        for unit in $units; do
            # shellcheck disable=SC2086 # nothing, or one word
            systemctl $wait stop "$unit" 2>/dev/null || :
            systemctl --no-reload disable --quiet "$unit" 2>/dev/null || :
        done
    elif [ -x /usr/bin/codedeploy-agent ] && /usr/bin/codedeploy-agent status >/dev/null 2>&1; then
        /usr/bin/codedeploy-agent stop || fail 'The agent did not stop (see above). Nothing has been removed.'
    fi
}

remove_file() {
    if [ -e "$root$1" ] || [ -L "$root$1" ]; then
        rm -f "$root$1"
        say "- $root$1"
    fi
    case $1 in */*.service.d/*) rmdir "$root${1%/*}" 2>/dev/null || : ;; esac
}

check_mounts() {
    [ -z "$purge" ] || [ -r /proc/self/mountinfo ] ||
        fail '/proc is not mounted, so nobody knows what else is. Mount it, and run this again. Nothing has changed.'
}

# Places of the configuration as it is shipped. What somebody has put elsewhere, somebody removes.
purge_data() {
    for directory in /opt/codedeploy-agent/deployment-root /opt/codedeploy-agent/state /var/log/aws/codedeploy-agent \
        /var/lib/codedeploy-agent /var/log/codedeploy-agent /etc/codedeploy-agent; do
        place=$root$directory
        if [ ! -e "$place" ] && [ ! -L "$place" ]; then continue; fi
        why=$(not_ours "$directory")
        if [ -n "$why" ]; then
            say "$place stays: $why. What is of no use in it is yours to remove."
            continue
        fi
        rm -rf "$place" || fail "$place could not be removed whole (see above). Fix the cause, and run this again."
        say "- $place"
    done
    remove_file /etc/logrotate.d/codedeploy-agent
    rmdir "$root/opt/codedeploy-agent" "$root/var/log/aws" 2>/dev/null || :
}

# Why what lies in a directory is somebody else's: a link leads there, or a file system is mounted there, which may be
# a directory of this very file system (mount --bind). Nothing where neither is so.
not_ours() {
    part=$root
    rest=${1#/}/
    while [ -n "$rest" ]; do
        part=$part/${rest%%/*}
        rest=${rest#*/}
        if [ -L "$part" ]; then
            say "$part is a symbolic link"
            return
        fi
    done
    while read -r _ _ _ _ point _; do
        case $point in
            "$root$1" | "$root$1"/*)
                say "a file system is mounted at $point"
                return
                ;;
        esac
    done </proc/self/mountinfo
}

# -- The rest -----------------------------------------------------------------------------------------------

tidy() {
    base=$(cd -P "$root$prefix" && pwd -P)
    lock || exit 0 # what an installation is just making has no process yet
    kept=$(readlink "$base/current") || exit 0 # not before: one that has just ended may have pointed it elsewhere
    remove_versions_but "${kept#versions/}"
}

# Remove the versions that are neither the given one nor run by any process.
remove_versions_but() {
    used=$({ readlink /proc/[0-9]*/exe 2>/dev/null || :; } | sed -n "s|^$base/versions/\([^/]*\)/.*|\1|p" | sort -u)
    for directory in "$base"/versions/*; do
        [ -d "$directory" ] || continue
        [ "${directory##*/}" != "$1" ] || continue
        ! say "$used" | grep -qxF -e "${directory##*/}" || continue
        rm -rf "$directory"
        say "- $directory"
    done
}

systemd_runs() { [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; }

# What hooks start is in the control group of the agent's unit.
in_hook() {
    case $(cat /proc/self/cgroup 2>/dev/null) in *codedeploy-agent*) return 0 ;; esac
    return 1
}

main "$@"
