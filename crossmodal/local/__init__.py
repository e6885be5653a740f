"""A whole stack on one machine as child processes: Valkey, worker, gateway, Flower."""
