#compdef agentctl
# Completion of agentctl for zsh. The program itself knows what it takes, and is asked.
(( $+commands[agentctl] )) || return 1

if (( ! $+functions[_agentctl_completion] )); then
    eval "$(_AGENTCTL_COMPLETE=zsh_source agentctl 2>/dev/null)"
    # Through this file all the same: the program may be gone since, and the user is in the middle of a line.
    compdef _agentctl agentctl
fi
(( $+functions[_agentctl_completion] )) && _agentctl_completion "$@" 2>/dev/null
