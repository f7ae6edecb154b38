"""What this process sees of Ray: the session of a job, and the autoscaler."""
