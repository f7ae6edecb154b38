"""From a sample to the model's tensors: prompts, tokens, letterbox, views, batches."""
