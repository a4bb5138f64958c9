"""Process tuning: garbage collector, switch interval, file descriptors, memory."""
