"""A page to try a model and look at results, and the same as a service: FastAPI, and plain ES modules."""
