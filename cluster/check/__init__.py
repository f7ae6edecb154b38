"""What a cluster file lacks before it is started, told without asking a cloud."""
