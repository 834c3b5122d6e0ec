# Completion of agentctl for fish. The program itself knows what it takes, and is asked.
command -q agentctl; or exit

env _AGENTCTL_COMPLETE=fish_source agentctl 2>/dev/null | source
complete --command agentctl --erase
# It may be gone since, and the user is in the middle of a line.
complete --command agentctl --no-files --arguments '(command -q agentctl; and _agentctl_completion)'
