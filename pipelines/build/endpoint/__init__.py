"""Judging regions and writing instructions with vision-language models behind a chat endpoint."""
