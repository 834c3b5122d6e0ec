"""What the deployment archive holds for this Install."""
