"""Kind `openai`: any server that has /chat/completions."""
