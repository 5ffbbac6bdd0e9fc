"""Kind `anythingllm`: workspaces and threads."""
