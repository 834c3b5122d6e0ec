# Completion of codedeploy-local for fish: its options are those of agentctl deploy.
complete --command codedeploy-local --no-files --wraps 'agentctl deploy'
