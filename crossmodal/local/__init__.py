"""A whole stack on one machine, as child processes: queue, worker, Flower."""
