"""New settings for a daemon that runs: what can be applied, what needs a restart."""
