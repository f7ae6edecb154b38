"""Writing instructions: exact rules for interactive samples, the embedded writer for the other two tasks."""
