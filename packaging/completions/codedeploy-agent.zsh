#compdef codedeploy-agent
# Completion of codedeploy-agent for zsh.
local -a offered
offered=(
    'start:start the deployment agent'
    'stop:stop it; running commands are carried to their end'
    'restart:stop and start it'
    'status:say whether it runs'
    'version:print the version'
    'help:print what there is'
)
_arguments \
    '(-c --config_file)'{-c,--config_file}'[the agent with this configuration]:configuration:_files' \
    '(- 1)'{-h,--help}'[print what there is]' \
    '(- 1)'{-v,--version}'[print the version]' \
    '1:command:{_describe command offered}'
