# Stands at the beginning of every script of the packages. Only sh, coreutils and sed are used, and flock where it is.
#
# The packages own /usr/lib/codedeploy-agent/program. It never runs from there: a package manager deletes what is
# gone from a new version while workers of the old one still run, and may import it later. So each installation is
# linked (hard links: no space) to a directory of its own below versions/, and `current` points to the newest.
library=/usr/lib/codedeploy-agent
units='codedeploy-agent.service codedeploy-agent-unprivileged.service'

# Where preinst lays a configuration file aside: a name of our own, that logrotate passes over.
aside_of() {
    echo "$1.codedeploy-agent.dpkg-bak"
}

# What preinst has laid aside, and nothing else.
return_configuration() {
    # shellcheck disable=SC2154 # the build puts it above the scripts of the deb
    for file in $configuration; do
        aside=$(aside_of "$file")
        if [ -e "$aside" ] || [ -L "$aside" ]; then mv -f "$aside" "$file"; fi
        rm -f "$file.codedeploy-agent.dpkg-tmp"
    done
}

systemd_runs() {
    [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1
}

reload_systemd() {
    if systemd_runs; then systemctl daemon-reload || :; fi
}

# What hooks start is in the control group of the agent's unit.
in_hook() {
    case $(cat /proc/self/cgroup 2>/dev/null) in *codedeploy-agent*) return 0 ;; esac
    return 1
}

# Two installations wait for each other, and so does what tidies up, which agents call at their start: until `current`
# points to it, a new version looks like an old one. Called with words for flock, of how long to wait; fails where
# that is over. The directory itself is locked, so no file is left over.
lock() {
    [ -d "$library" ] || return 0
    command -v flock >/dev/null 2>&1 || return 0
    exec 9<"$library"
    flock "$@" 9
}

unlock() {
    exec 9<&-
}

# The versions that a process runs from, one a line. The kernel knows no links, and somebody may have made one of ours.
versions_in_use() {
    versions=$(readlink -f "$library/versions") || return 0
    { readlink /proc/[0-9]*/exe 2>/dev/null || :; } | while read -r program; do
        case $program in "$versions"/*) program=${program#"$versions"/} && echo "${program%%/*}" ;; esac
    done | sort -u
}

unused_versions() {
    used=$(versions_in_use)
    for directory in "$library"/versions/*; do
        [ -d "$directory" ] || continue
        ! printf '%s\n' "$used" | grep -qxF -e "${directory##*/}" || continue
        echo "${directory##*/}"
    done
}

# Made less than a minute ago: who starts it may not be seen as a process of it yet.
is_young() {
    made=$(stat -c %Y "$1") || return 1
    age=$(($(date +%s) - made))
    [ "$age" -ge 0 ] && [ "$age" -lt 60 ]
}

# Remove the versions that are neither started from now on, nor run by any process, nor young; under the lock.
remove_old_versions() {
    current=$(readlink "$library/current") || return 0
    for name in $(unused_versions); do
        [ "versions/$name" != "$current" ] || continue
        is_young "$library/versions/$name" || rm -rf "$library/versions/$name"
    done
    for directory in "$library"/versions/.new*; do  # of an installation that was cut off
        if [ -d "$directory" ] && ! is_young "$directory"; then rm -rf "$directory"; fi
    done
}

# Growing pauses between restarts, where systemd knows them (254 and newer); older ones would complain of the words.
set_restart_delays() {
    known=$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
    for unit in $units; do
        link=/usr/lib/systemd/system/$unit.d/restart-delays.conf
        rm -f "$link"
        if [ "${known:-0}" -ge 254 ] && [ -f "$library/restart-delays.conf" ]; then
            ln -s "$library/restart-delays.conf" "$link"
        fi
    done
}

# The preset is not in the package's list: where dpkg knows that directory by its other name, below /lib, it would try to
# remove systemd's with ours, and complain.
preset=/usr/lib/systemd/system-preset/80-codedeploy-agent.preset

link_preset() {
    [ -f "$library/${preset##*/}" ] || return 0
    mkdir -p "${preset%/*}"
    ln -sfn "$library/${preset##*/}" "$preset"
}

# Make what the package has just brought the version that is started from now on.
activate() {
    lock -w 600 || :
    version=$(cat "$library/program/version")
    number=1
    while [ -e "$library/versions/$version-$number" ]; do number=$((number + 1)); done
    mkdir -p "$library/versions"
    new=$(mktemp -d "$library/versions/.new.XXXXXX")
    cp -al "$library/program" "$new/" 2>/dev/null || {
        # A file system without hard links.
        rm -rf "$new/program"
        cp -a "$library/program" "$new/"
    }
    touch "$new/program"  # so it is young, where there is no flock
    mv -T "$new/program" "$library/versions/$version-$number"
    rmdir "$new"
    ln -sfn "versions/$version-$number" "$library/.current.$$"
    mv -T "$library/.current.$$" "$library/current"
    remove_old_versions
    unlock
    set_restart_delays
    link_preset
}

# Where scripts of the existing agents look for them. Not in the packages: dpkg would take an empty /opt away with them.
link_commands() {
    mkdir -p /opt/codedeploy-agent/bin
    for name in codedeploy-agent codedeploy-local; do
        ln -sfn "/usr/bin/$name" "/opt/codedeploy-agent/bin/$name"
    done
}

# Only ours: after going back to an existing agent its own are there.
unlink_commands() {
    for name in codedeploy-agent codedeploy-local; do
        link=/opt/codedeploy-agent/bin/$name
        if [ "$(readlink "$link")" = "/usr/bin/$name" ]; then rm -f "$link"; fi
    done
    rmdir /opt/codedeploy-agent/bin /opt/codedeploy-agent 2>/dev/null || :
}

# Take away what `activate` and `link_commands` have made. Workers that still run keep their version.
deactivate() {
    unlink_commands
    for unit in $units; do
        rm -f "/usr/lib/systemd/system/$unit.d/restart-delays.conf"
        rmdir "/usr/lib/systemd/system/$unit.d" 2>/dev/null || :
    done
    if [ "$(readlink "$preset")" = "$library/${preset##*/}" ]; then
        rm -f "$preset"
        rmdir "${preset%/*}" 2>/dev/null || :
    fi
    lock -w 600 || :
    rm -f "$library/current" "$library"/.current*
    rm -rf "$library"/versions/.new*
    for name in $(unused_versions); do rm -rf "$library/versions/$name"; done
    for directory in "$library"/versions/*; do
        if [ -d "$directory" ]; then
            echo "codedeploy-agent: $directory stays: a process runs from it. It can be removed when that has ended."
        fi
    done
    rmdir "$library/versions" "$library" 2>/dev/null || :
    unlock
}

# Not waited for: the agent lets running commands come to their end first, which can take hours, and where a hook has
# started the package manager they would wait for each other.
restart_running() {
    systemd_runs || return 0
    for unit in $units; do
        systemctl --no-block try-restart "$unit" || :
    done
}

# After taking over from an existing agent, whose scripts may have stopped it: a host that had an agent has one.
start_enabled() {
    systemd_runs || return 0
    # Existing agents may be enabled by links of System V only, which a native unit makes void.
    for link in /etc/rc[2345].d/S[0-9][0-9]codedeploy-agent /etc/rc.d/rc[2345].d/S[0-9][0-9]codedeploy-agent; do
        if [ -L "$link" ]; then systemctl enable codedeploy-agent.service >/dev/null 2>&1 || :; fi
    done
    if systemctl is-enabled --quiet codedeploy-agent.service 2>/dev/null ||
        systemctl is-active --quiet codedeploy-agent.service; then
        systemctl --no-block restart codedeploy-agent.service || :
    fi
}

# The agent waits for running commands before it stops. Only a hook can't wait for that: its own command is one of them.
stop_running() {
    systemd_runs || return 0
    wait=
    if in_hook; then wait=--no-block; fi
    for unit in $units; do
        # shellcheck disable=SC2086 # nothing, or one word
        systemctl $wait stop "$unit" || :
    done
}

# The same before a removal, which takes the program away: also for workers whose agent is gone already, or was told
# not to wait for them. In all for as long as the agent would at most.
stop_running_and_workers() {
    systemd_runs || return 0
    end=$(($(date +%s) + $(longest_wait)))
    stop_running
    if in_hook; then return 0; fi
    for file in codedeployagent.yml codedeployagent-unprivileged.yml; do
        while [ "$(date +%s)" -lt "$end" ] && workers_run; do
            code=0
            # Not longer at once: what can't be reported any more, as the agent is gone, is no worker.
            agentctl wait-idle --timeout 2 --config-file "/etc/codedeploy-agent/conf/$file" >/dev/null 2>&1 || code=$?
            [ "$code" -eq 1 ] || break
        done
    done
}

# In seconds.
longest_wait() {
    told=$(sed -n 's/^:\{0,1\}kill_agent_max_wait_time_seconds: *\([1-9][0-9]*\).*/\1/p' \
        /etc/codedeploy-agent/conf/codedeployagent.yml 2>/dev/null | tail -n 1)
    echo "${told:-7200}"
}

# Whether a process of ours runs that is not just reading what an application prints.
workers_run() {
    versions=$(readlink -f "$library/versions") || return 1
    for process in /proc/[0-9]*; do
        read -r name <"$process/comm" || continue
        [ "$name" != hook-output ] || continue
        case $(readlink "$process/exe") in "$versions"/*) return 0 ;; esac
    done 2>/dev/null
    return 1
}

disable() {
    command -v systemctl >/dev/null 2>&1 || return 0
    for unit in $units; do
        systemctl --no-reload disable "$unit" >/dev/null 2>&1 || :
    done
}

# A removal or a return to an existing agent may fail after the agent was stopped; then things are as they were.
# What a first attempt has found counts when it is tried again.
stopped=/run/codedeploy-agent.stopped

remember_services() {
    [ ! -e "$stopped" ] && [ -d /run ] && command -v systemctl >/dev/null 2>&1 || return 0
    for unit in $units; do
        if [ "$(systemctl is-enabled "$unit" 2>/dev/null)" = enabled ]; then echo "enable $unit"; fi
        systemd_runs || continue
        case $(systemctl is-active "$unit") in active | activating | reloading) echo "start $unit" ;; esac
    done >"$stopped" || :
}

restore_services() {
    [ -e "$stopped" ] || return 0
    while read -r verb unit; do
        case $verb in
            enable) systemctl enable "$unit" >/dev/null 2>&1 || : ;;
            start) systemctl --no-block start "$unit" || : ;;
        esac
    done <"$stopped"
    forget_services
}

forget_services() {
    rm -f "$stopped"
}
