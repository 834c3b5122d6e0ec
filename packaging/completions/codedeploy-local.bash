# Completion of codedeploy-local for bash: its options are those of agentctl deploy.
command -v agentctl >/dev/null || return

if ! declare -F _agentctl_completion >/dev/null; then
    eval "$(_AGENTCTL_COMPLETE=bash_source agentctl 2>/dev/null)" 2>/dev/null
    # What agentctl itself gets stands in a file of its own, which is still to be loaded.
    complete -r agentctl 2>/dev/null
fi

_codedeploy_local() {
    local arguments=("${COMP_WORDS[@]:1}")
    local COMP_WORDS=(agentctl deploy "${arguments[@]}") COMP_CWORD=$((COMP_CWORD + 1))
    ! declare -F _agentctl_completion >/dev/null || _agentctl_completion agentctl 2>/dev/null
}

complete -o nosort -F _codedeploy_local codedeploy-local 2>/dev/null ||
    complete -F _codedeploy_local codedeploy-local
