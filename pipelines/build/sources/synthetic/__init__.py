"""Generated aerial scenes with exact masks: a source that needs no download."""
