# Completion of agentctl for bash. The program itself knows what it takes, and is asked.
command -v agentctl >/dev/null || return

eval "$(_AGENTCTL_COMPLETE=bash_source agentctl 2>/dev/null)" 2>/dev/null

_agentctl() {
    # It may be gone since, and the user is in the middle of a line.
    ! declare -F _agentctl_completion >/dev/null || _agentctl_completion agentctl 2>/dev/null
}

# bash before 4.4 does not know nosort.
complete -o nosort -F _agentctl agentctl 2>/dev/null || complete -F _agentctl agentctl
