# Stands at the beginning of every script of the packages. Only sh, coreutils and sed are used.
#
# The packages own /usr/lib/codedeploy-agent/program. It never runs from there: a package manager deletes what is
# gone from a new version while workers of the old one still run, and may import it later. So each installation is
# linked (hard links: no space) to a directory of its own below versions/, and `current` points to the newest.
library=/usr/lib/codedeploy-agent
units='codedeploy-agent.service codedeploy-agent-unprivileged.service'

# What preinst has laid aside.
return_configuration() {
    for file in /etc/codedeploy-agent/conf/*.dpkg-bak /etc/logrotate.d/codedeploy-agent.dpkg-bak; do
        if [ -f "$file" ]; then mv "$file" "${file%.dpkg-bak}"; fi
    done
}

systemd_runs() {
    [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1
}

reload_systemd() {
    if systemd_runs; then systemctl daemon-reload || :; fi
}

# The versions that a process runs from, one a line.
versions_in_use() {
    { readlink /proc/[0-9]*/exe 2>/dev/null || :; } | sed -n "s|^$library/versions/\([^/]*\)/.*|\1|p" | sort -u
}

# Remove the versions that are neither the given one nor run by any process.
remove_versions_but() {
    kept=$(versions_in_use)
    for directory in "$library"/versions/*; do
        [ -d "$directory" ] || continue
        name=${directory##*/}
        [ "$name" != "$1" ] || continue
        ! printf '%s\n' "$kept" | grep -qxF -e "$name" || continue
        rm -rf "$directory"
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

# Make what the package has just brought the version that is started from now on.
activate() {
    version=$(cat "$library/program/version")
    number=1
    while [ -e "$library/versions/$version-$number" ]; do number=$((number + 1)); done
    mkdir -p "$library/versions"
    rm -rf "$library/versions/.new" "$library/.current"
    cp -al "$library/program" "$library/versions/.new" 2>/dev/null || {
        # A file system without hard links.
        rm -rf "$library/versions/.new"
        cp -a "$library/program" "$library/versions/.new"
    }
    mv "$library/versions/.new" "$library/versions/$version-$number"
    ln -s "versions/$version-$number" "$library/.current"
    mv -T "$library/.current" "$library/current"
    remove_versions_but "$version-$number"
    set_restart_delays
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

# Take away what `activate` and `link_commands` have made. Workers that still run keep theirs until the last one has ended, or a purge.
deactivate() {
    unlink_commands
    rm -f "$library/current"
    rm -rf "$library/versions/.new"
    remove_versions_but ''
    for unit in $units; do
        rm -f "/usr/lib/systemd/system/$unit.d/restart-delays.conf"
        rmdir "/usr/lib/systemd/system/$unit.d" 2>/dev/null || :
    done
    rmdir "$library/versions" "$library" 2>/dev/null || :
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
    case $(cat /proc/self/cgroup 2>/dev/null) in *codedeploy-agent*) wait=--no-block ;; esac
    for unit in $units; do
        # shellcheck disable=SC2086 # nothing, or one word
        systemctl $wait stop "$unit" || :
    done
}

disable() {
    command -v systemctl >/dev/null 2>&1 || return 0
    for unit in $units; do
        systemctl --no-reload disable "$unit" >/dev/null 2>&1 || :
    done
}
