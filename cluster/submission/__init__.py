"""Jobs on a running cluster: what is uploaded, with which variables, and how it is followed."""
