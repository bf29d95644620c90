"""What this machine has for us: processors, threads, memory, GPUs. The standard library alone, so that it can be asked
before anything heavy is loaded, and where nothing heavy is installed."""
