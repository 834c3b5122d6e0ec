# Completion of codedeploy-agent for fish.
complete --command codedeploy-agent --no-files
complete --command codedeploy-agent --short-option c --long-option config_file --require-parameter --force-files \
    --description 'The agent with this configuration'
complete --command codedeploy-agent --short-option h --long-option help --description 'Print what there is'
complete --command codedeploy-agent --short-option v --long-option version --description 'Print the version'

function __codedeploy_agent_command --argument-names name description
    complete --command codedeploy-agent --condition __fish_use_subcommand --arguments $name --description $description
end
__codedeploy_agent_command start 'Start the deployment agent'
__codedeploy_agent_command stop 'Stop it; running commands are carried to their end'
__codedeploy_agent_command restart 'Stop and start it'
__codedeploy_agent_command status 'Say whether it runs'
__codedeploy_agent_command version 'Print the version'
__codedeploy_agent_command help 'Print what there is'
functions --erase __codedeploy_agent_command
