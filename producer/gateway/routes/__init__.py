"""The routes of the gateway's own interface, a module each subject."""
