"""What runs on a node: agent, template, supervisor, worker. Streamed; standard library only."""
