# Completion of codedeploy-agent for bash.
_codedeploy_agent() {
    local word=${COMP_WORDS[COMP_CWORD]} offered='start stop restart status version help'
    case ${COMP_WORDS[COMP_CWORD - 1]} in
        -c | --config_file)
            compopt -o default
            return
            ;;
    esac
    case $word in -*) offered='--config_file --help --version' ;; esac
    mapfile -t COMPREPLY < <(compgen -W "$offered" -- "$word")
}

complete -F _codedeploy_agent codedeploy-agent
