"""The commands that submit, follow and manage jobs, and what they share."""
