"""One optimizer step under DeepSpeed, whoever runs it: ranks, optimizer, pieces of state, rates."""
