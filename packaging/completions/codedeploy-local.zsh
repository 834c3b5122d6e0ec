#compdef codedeploy-local
# Completion of codedeploy-local for zsh: its options are those of agentctl deploy.
(( $+commands[agentctl] )) || return 1

if (( ! $+functions[_agentctl_completion] )); then
    eval "$(_AGENTCTL_COMPLETE=zsh_source agentctl 2>/dev/null)"
    compdef _agentctl agentctl
fi
words=(agentctl deploy "${(@)words[2,-1]}")
(( CURRENT++ ))
(( $+functions[_agentctl_completion] )) && _agentctl_completion "$@" 2>/dev/null
