"""The model that a job names: built and filled, measured (FLOPs, memory), and the devices it runs on."""
