"""All that runs inside vLLM's processes. Imports nothing of ours from outside this folder."""
